"""One training stage for every objective and method, and what it stands on."""
