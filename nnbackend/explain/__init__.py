"""Feed-forward and backpropagation of one sample, explained step by step with its numbers."""

from nnbackend.explain.explanation import Explanation, explain
from nnbackend.explain.page import to_html
from nnbackend.explain.text import to_text

__all__ = ["Explanation", "explain", "to_html", "to_text"]
