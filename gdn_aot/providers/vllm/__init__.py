"""vLLM. `workloads` imports it, and with it everything here but `steps`, `versions` and `relaxations`."""
