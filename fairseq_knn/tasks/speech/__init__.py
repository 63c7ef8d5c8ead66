"""What the tasks of speech translation share."""
