"""What a life keeps on disk: every file name and every record."""
