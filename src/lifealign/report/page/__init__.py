"""The report: one self-contained HTML page about a life, or about several runs."""
