"""What runs in the serving process: loads compiled kernels and launches them."""
