"""The speed comparison: the same training by this library and by its peers.

Each contender runs alone in its own process (`worker`); `runner` alternates between them, and
`report` writes a file, a table and a picture of the results. The engine imports nothing from here;
a peer is imported only where it is measured.
"""
