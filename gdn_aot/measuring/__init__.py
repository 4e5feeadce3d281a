"""Measure candidates on a GPU and keep the choices as records."""
