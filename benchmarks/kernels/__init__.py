"""The parts of ``benchmarks/kernels.py``, which says what is measured and how."""
