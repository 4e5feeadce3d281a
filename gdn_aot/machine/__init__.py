"""The machine at hand: what is installed, which GPUs there are, processes started on it."""
