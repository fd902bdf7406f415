"""Presents lives and comparisons to people: on the terminal, as pages, tables and figures."""
