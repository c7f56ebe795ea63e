"""Modules that pytest must not import to collect doctests: they need CuPy."""

collect_ignore = ["real_arrays.py"]
