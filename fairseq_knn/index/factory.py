"""Which index suits a datastore."""

import math

import torch

# Multiply-adds per query, N * d, up to which an exact scan on a CPU is about as fast as an inverted file. Measured
# with 128 queries on 2 cores, exact against inverted: 4.1 and 3.5 ms for 6,000 keys of dimension 160, 7.5 and 3.7 ms
# for 12,500; 6.0 and 7.8 ms for 4,000 keys of dimension 512, 10.6 and 8.4 ms for 8,000.
EXACT_SCAN = 2_000_000
# Candidates per neighbour, chosen by their codes, whose exact distances decide. Measured on decoder states
# (d = 160 and 512, k = 8, nprobe 32): recall 0.987 and 0.978 with 8, 0.995 and 0.979 with 16, 0.998 and 0.981
# with 64, which takes a half and a third more time than 16.
K_FACTOR = 16
# The same for lists on disk. Measured with one bit per dimension, k = 8 and nprobe 32: recall 0.926 with 2, 0.988 with
# 4, 0.999 with 8 (195,000 hidden states of a language model, d = 192); 0.865, 0.960 and 0.985 (100,000 synthetic keys,
# d = 1024).
ON_DISK_K_FACTOR = 8
# Lists beyond which a graph of their centroids is searched instead of all of them.
_MOST_COMPARED = 4096
_MAX_LISTS = 65536


def choose_factory(entries: int, dimension: int, device: torch.device) -> str:
    """The faiss factory string for a datastore.

    * Few keys (N * d up to 2 million on a CPU): ``Flat``, the exact search.
    * CPU: an inverted file whose lists hold 4-bit product-quantiser codes of the residuals, in the layout
      of faiss's fast scan, and the keys in float16, as they are stored, so that the distances of the best
      candidates are exact. A sub-quantiser covers four dimensions; other dimensions are padded.
    * GPU: an inverted file of 8-bit scalar-quantised keys; GPUs have no fast scan.

    Args:
        entries: number of keys, N.
        dimension: of the keys, d.
        device: where the search will run.
    """
    if entries * dimension <= EXACT_SCAN:
        return "Flat"
    lists = number_of_lists(entries)
    if device.type != "cpu":
        return f"IVF{lists},SQ8"
    padded = -(-dimension // 4) * 4
    padding = f"Pad{padded}," if padded != dimension else ""
    return f"{padding}IVF{lists},PQ{padded // 4}x4fsr,Refine(SQfp16)"


def choose_on_disk_factory(entries: int, dimension: int) -> str:
    """The faiss factory string for a datastore whose lists stay on disk.

    An inverted file whose lists hold one bit for each dimension of the residuals (RaBitQ, Gao & Long 2024, which wants
    them rotated at random): what is read from disk is short, and the stored keys decide between the candidates. Lists
    are four times as many as in memory, so that less of them is read. 8-bit product-quantiser codes take minutes to
    hours to train; 4-bit scalar codes find more with few candidates, but are four times as long and take ten times as
    long to compare (35 and 400 ns a key, d = 1024).

    Args:
        entries: number of keys, N.
        dimension: of the keys, d.
    """
    lists = number_of_lists(16 * entries, entries)
    graph = "_HNSW32" if lists > _MOST_COMPARED else ""
    return f"RR{dimension},IVF{lists}{graph},RaBitQ"


def number_of_lists(entries: int, trained_with: int | None = None) -> int:
    """Lists of an inverted file: the power of two nearest to sqrt(N), so small that a list has 39 keys.

    Args:
        entries: N.
        trained_with: number of keys that are there, if it is not N.
    """
    nearest = 1 << round(math.log2(entries) / 2)
    possible = 1 << int(math.log2(max(1, (trained_with or entries) // 39)))
    return min(nearest, possible, _MAX_LISTS)


def training_size(entries: int, lists: int) -> int:
    """Number of keys to train an index with: 64 for each list, and enough for the quantiser."""
    return min(entries, max(64 * lists, 65536))
