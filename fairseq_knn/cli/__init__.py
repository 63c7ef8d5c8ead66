"""The console script ``fairseq-knn``: one module per sub-command."""
