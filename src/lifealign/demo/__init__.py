"""The support-desk suite, and the demonstration that runs on it."""
