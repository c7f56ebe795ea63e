"""The speed comparison: the same training by this library and by its peers, side by side.

A contender runs alone in a process of its own (`worker`); `runner` takes turns between them and
`report` makes a file, a table and a picture of what came out. Nothing here is imported by the
engine, and a peer only where it is measured.
"""
