"""The conformance kit on `device="jax"`: pip install the plug-in first."""

from nnbackend.testing import conformance_classes

globals().update(conformance_classes("jax"))
