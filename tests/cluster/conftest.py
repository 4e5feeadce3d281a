"""The fixtures of the tests on clusters."""

from cluster_fixtures import *  # noqa: F403
