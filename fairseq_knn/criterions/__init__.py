"""What stock criterions are given, and the criterions this package registers."""

import fairseq  # noqa: F401  # first, for the reason given in fairseq_knn/tasks/__init__.py
