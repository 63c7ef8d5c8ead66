"""Where documents begin in a text of lines."""

from typing import Any

import numpy as np
import pytest
from fairseq.data import Dictionary

from fairseq_knn.tasks.knn.documents import documents_of_lines


def documents(lines: list[str]) -> list[int]:
    dictionary: Any = Dictionary()
    encoded = [dictionary.encode_line(line, add_if_not_exist=True).long() for line in lines]
    return documents_of_lines(encoded, np.array([len(line) for line in encoded]), dictionary).tolist()


@pytest.mark.parametrize(
    "title", [" = New York = ", " = Autism = ", " = A = ", " = E = mc2 = ", " = Aut@@ ism = ", "▁= ▁Aut ism ▁="]
)
def test_titles_of_any_length_begin_a_document(title: str) -> None:
    assert documents([" = First one = ", "", "a b", title, "", " = = Section = = ", "c"]) == [0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("line", [" = = Section = = ", " = = = Part = = = ", "a = b", "= =", "= = =", "= a", "= = a ="])
def test_other_lines_do_not(line: str) -> None:
    assert documents([" = First one = ", "a b", "", line, "c"]) == [0, 0, 0, 0, 0]


def test_without_titles_an_empty_line_ends_a_document() -> None:
    assert documents(["a", "b", "", "", "c", "", "d"]) == [0, 0, 0, 0, 1, 1, 2]
