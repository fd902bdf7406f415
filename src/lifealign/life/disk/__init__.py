"""What a life keeps on disk: the names of its files, and the records in them."""
