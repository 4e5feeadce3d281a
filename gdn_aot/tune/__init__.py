"""Measured choices: their records, and what is made of them."""
