"""Neighbours for the causal and encoder-decoder models of Hugging Face's transformers.

Nothing here imports transformers: a model that is to be changed brings it along.
"""
