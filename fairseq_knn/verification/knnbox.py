"""Everything that is wrong with a datastore of knn-box, as far as it describes itself."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fairseq_knn.datastore.bare import MAKE_IT_AGAIN
from fairseq_knn.datastore.knnbox import KnnboxDatastore
from fairseq_knn.errors import DatastoreError
from fairseq_knn.verification.content import KeyContent, Symbols, ValueContent
from fairseq_knn.verification.findings import Advance, Check, Finding, Vocabulary, block_rows


class KnnboxCheck(Check):
    """A datastore of knn-box: sizes and numbers; it has no checksums.

    Args:
        path: its directory.
        vocabulary: which the values belong to; without it they only must be token ids of some.

    Raises:
        DatastoreError: ``config.json`` is missing or damaged.
    """

    def __init__(self, path: Path, vocabulary: Vocabulary | None = None) -> None:
        self._keys, self._values = KnnboxDatastore.described(path)
        self._path = path
        self._symbols = Symbols(None) if vocabulary is None else vocabulary.symbols
        self._sizes = []
        for array in (self._keys, self._values):
            try:
                array.check()
            except DatastoreError as error:
                self._sizes.append(str(error))
        self.datastore = None if self._sizes else KnnboxDatastore.open(path)
        self.bytes = 0 if self._sizes else self._keys.bytes + self._values.bytes

    def figures(self) -> str:
        return f"{self._keys.shape[0]:,} entries without checksums"

    def findings(self, advance: Advance) -> Iterator[Finding]:
        for text in self._sizes:
            yield Finding(text)
        if self.datastore is not None:
            yield from self._content(advance)

    def _content(self, advance: Advance) -> Iterator[Finding]:
        keys, values = KeyContent(), ValueContent(self._symbols)
        all_keys, all_values = self._keys.map(), self._values.map().reshape(-1)
        entries, empty = len(all_keys), 0  # so many at the end have neither key nor value
        rows = block_rows(all_keys.itemsize * all_keys.shape[1])
        for start in range(0, entries, rows):
            block, tokens = np.asarray(all_keys[start : start + rows]), np.asarray(all_values[start : start + rows])
            filled = np.flatnonzero(~keys.add(block) | (tokens != 0))
            values.add(tokens)
            empty = len(block) - 1 - int(filled[-1]) if len(filled) else empty + len(block)
            advance(block.nbytes + tokens.nbytes)
        keys.zero.count -= empty  # they are the last, so the first that is wrong stays the same
        for fault in keys.faults():
            self.index_is_testable = False
            yield Finding(f"{self._keys.path}: {fault}; {MAKE_IT_AGAIN}")
        remedy = MAKE_IT_AGAIN
        if self._symbols.size is not None:
            remedy = f"name the dictionary of the data it was built from as --vocabulary, or {MAKE_IT_AGAIN}"
        for fault in values.faults():
            yield Finding(f"{self._values.path}: {fault}; {remedy}")
        if empty:
            yield Finding(
                f"the last {empty:,} of {entries:,} entries are empty, as where adaptive-knn-mt makes room for more "
                f"than there are: `fairseq-knn convert {self._path} NEW DATA --path BASE.pt` leaves them out",
                fault=False,
            )
