"""Parts of ``benchmarks/sglang_engine.py``."""
