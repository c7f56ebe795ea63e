"""The speed comparison: the same training by this library's backends and by peers.

Each contender runs alone in its own process (`worker`); `runner` alternates between them, and
`report` makes a table of the results. Only the command `bench` imports from here; a peer is
imported only where it is measured. `benchmarks/` adds PyTorch and JAX, and publishes its results.
"""
