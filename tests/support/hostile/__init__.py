"""What attacks: cases by seed and number, each run in a child with limits, next to files that must stay as they are.

``benchmarks/fuzz.py`` runs all of them, ``tests/hostile`` a few of each kind at every commit.
"""
