"""The training stage that all objectives and methods share, and what it needs."""
