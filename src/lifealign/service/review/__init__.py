"""Pairs decided by hand, on a page on loopback: read, shown, decided, written."""
