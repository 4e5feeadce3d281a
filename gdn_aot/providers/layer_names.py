"""Names of layers, as `gdn_aot.catalogue.models.Layers.layer` has them. Imports nothing."""

INTERLEAVED = "qwen3-next"
"""Its projections have the parts of each key head side by side."""
QWEN, OLMO = "qwen3.5", "olmo-hybrid"
KIMI = "kimi-linear"
"""Kimi Delta Attention as Kimi-Linear has it: three convolutions, and a decay for each channel of a key."""
ALICE, BAILING, GLM, K3 = "alice-ai", "bailing-v3", "glm5-next", "kimi-k3"
"""Those of AliceAI, Ling-3.0, GLM-5.3-Flash and Kimi-K3, which have Kimi Delta Attention, too."""
