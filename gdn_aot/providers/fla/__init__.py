"""flash-linear-attention (fla-core). Only `workloads` and `modules` import it."""
