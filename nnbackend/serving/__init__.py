"""Answers of a model over HTTP: `nnbackend serve`. Needs the extra `serve`."""
