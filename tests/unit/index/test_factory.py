"""The rule behind ``--knn-index auto``."""

import faiss
import pytest
import torch

from fairseq_knn.index.factory import EXACT_SCAN, choose_factory, number_of_lists, training_size

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("entries", [1, 2, 100])
@pytest.mark.parametrize("dimension", [1, 7, 512])
def test_few_keys_are_searched_exactly(entries: int, dimension: int) -> None:
    assert choose_factory(entries, dimension, CPU) == "Flat"


def test_many_keys_get_an_inverted_file() -> None:
    assert choose_factory(226_000, 160, CPU) == "IVF512,PQ40x4fsr,Refine(SQfp16)"
    assert choose_factory(500_000, 512, CPU) == "IVF512,PQ128x4fsr,Refine(SQfp16)"
    assert choose_factory(19_061_382, 1024, CPU) == "IVF4096,PQ256x4fsr,Refine(SQfp16)"
    assert choose_factory(19_061_382, 1024, GPU) == "IVF4096,SQ8"


@pytest.mark.parametrize("dimension", [1, 2, 3, 13, 31, 128, 250, 1025])
def test_faiss_takes_every_dimension(dimension: int) -> None:
    for device in (CPU, GPU):
        index = faiss.index_factory(dimension, choose_factory(EXACT_SCAN + 1, dimension, device))
        assert index.d == dimension


@pytest.mark.parametrize("entries", [1, 38, 39, 77, 78, 1000, 10**5, 10**6, 10**9])
def test_every_list_has_keys_to_train_with(entries: int) -> None:
    lists = number_of_lists(entries)
    size = training_size(entries, lists)
    assert size <= entries
    assert lists == 1 or size >= 39 * lists
    assert lists & (lists - 1) == 0
