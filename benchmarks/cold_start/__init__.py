"""The parts of ``benchmarks/cold_start.py``, which says what is measured and how."""
