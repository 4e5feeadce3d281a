"""The keys of an artifact."""

from tracing.test_keys import *  # noqa: F403
