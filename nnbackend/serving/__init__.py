"""A trained model as a web service: rows in, predictions out (extra `serve`)."""

from nnbackend.serving.app import Limits, new_app

__all__ = ["Limits", "new_app"]
