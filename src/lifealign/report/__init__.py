"""What a life looks like to a person."""
