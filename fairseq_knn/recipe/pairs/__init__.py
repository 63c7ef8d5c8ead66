"""From a file of sentence pairs to text for training, validation and test."""
