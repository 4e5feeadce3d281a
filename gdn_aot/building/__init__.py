"""Runs on a build machine, without a GPU: trace, compile, choose, cover."""
