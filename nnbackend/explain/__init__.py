"""One sample's way through a network and back, told step by step with its numbers."""

from nnbackend.explain.page import to_html
from nnbackend.explain.story import Story, tell
from nnbackend.explain.text import to_text

__all__ = ["Story", "tell", "to_html", "to_text"]
