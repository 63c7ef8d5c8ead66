"""Learning what to train on: distributions over languages (MultiDDS), scores of sentence pairs (DDS). No fairseq.

Language pairs and sentence pairs are scored by how well the gradient of training on them agrees with that of
development data.
"""
