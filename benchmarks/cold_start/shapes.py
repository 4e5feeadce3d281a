"""What is called: Qwen3.5-9B or Kimi-Linear-48B without tensor parallelism, on one prompt or several."""

GDN_MODEL, KDA_MODEL = "qwen3.5-9b", "kimi-linear-48b-a3b"
HEADS, V_HEADS, K_DIM, V_DIM = 16, 32, 128, 128
KDA_HEADS = 32
PACKS: dict[str, tuple[int, ...] | None] = {"dense": None, "varlen": (1000, 2000, 1096), "small": None}
"""Lengths of the packed prompts of each call; None for one prompt."""
TOKENS = {"dense": 4096, "varlen": 4096, "small": 64}
"""``small`` is bound by launching; only its steady state is of interest."""
