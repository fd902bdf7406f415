"""A life: its directory, and the loop in which it learns one more task."""
