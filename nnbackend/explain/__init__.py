"""One step of gradient descent on one sample, explained step by step with its numbers."""

from nnbackend.explain.by_hand import HandWritten, read_network
from nnbackend.explain.explanation import Explanation, explain
from nnbackend.explain.page import to_html
from nnbackend.explain.text import to_text
from nnbackend.explain.updates import Update

__all__ = ["Explanation", "HandWritten", "Update", "explain", "read_network", "to_html", "to_text"]
