"""Files that are either whole or absent, and digests that identify their content."""
