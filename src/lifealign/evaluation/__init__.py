"""Scores after every task on every task so far."""
