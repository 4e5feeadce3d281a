"""Recording the launches of a deployment, and reading what was recorded; see `docs/how-to/capture.md`."""
