"""The fixtures of the tests of registries."""

from registry_fixtures import *  # noqa: F403
