"""Numbers: what kernels compute, compared with float64."""
