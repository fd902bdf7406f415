"""What people said of a model's answers, from any log that they keep, turned into preference pairs."""
