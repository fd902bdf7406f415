"""Suites of tasks: the paper's six, and the support desk that comes with the package."""
