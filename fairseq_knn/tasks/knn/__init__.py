"""Retrieval in tasks of fairseq: datastores that are built, searched, and consulted in decoding and training."""
