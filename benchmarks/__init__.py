"""Benchmark programs; see README.md."""
