"""What pytest shall not import to look for doctests: a module that needs CuPy."""

collect_ignore = ["real_arrays.py"]
