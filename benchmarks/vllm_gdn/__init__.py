"""Parts of ``benchmarks/vllm_gdn.py``."""
