"""What a section of settings is, and how YAML and the command line become one; knows no section."""
