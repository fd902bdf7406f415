"""Streams and comparisons: what a run has left behind, and what can be read from many of them."""
