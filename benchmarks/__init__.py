"""Programs behind every claim of speed; see README.md."""
