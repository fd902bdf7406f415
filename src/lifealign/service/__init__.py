"""A life in service: talked to, served, corrected."""
