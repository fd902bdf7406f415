"""Suites of tasks: the paper's six, and the support desk, which comes with the package."""
