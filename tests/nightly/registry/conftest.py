"""What the tests of registries share by day."""

from registry.conftest import artifacts, hub, machine, name, published, repo, running_hub, site, sm_90, sm_120

__all__ = ["artifacts", "hub", "machine", "name", "published", "repo", "running_hub", "site", "sm_90", "sm_120"]
