"""Datastores for models of fairseq that are loaded already, such as its hub returns."""
