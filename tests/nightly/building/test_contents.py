"""What is inside an artifact."""

from building.test_contents import *  # noqa: F403
