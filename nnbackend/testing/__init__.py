"""Proof for users and for authors of backends: gradient checks and the conformance kit."""
