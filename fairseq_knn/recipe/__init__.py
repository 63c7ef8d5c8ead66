"""From a file of sentence pairs to a trained translation model, in steps that can be looked at, tried and replaced."""
