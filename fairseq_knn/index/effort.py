"""How hard an index has to search to find the true neighbours."""

from fairseq_knn.index.factory import K_FACTOR, ON_DISK_K_FACTOR
from fairseq_knn.index.faiss_backend import FaissSearch
from fairseq_knn.index.recall import Measurement, RecallTest

ENOUGH = 0.98  # recall; more costs time and changes translations no more
MOST_LISTS = 32
# Lists to look into and candidates per neighbour to rank again, the cheapest first: a list takes about as long as eight
# candidates (d = 512, k = 8, 2 cores). More lists are not always better: their codes bring more false candidates.
# Decoder states, d = 512: recall 0.993 with 8 lists, 0.973 with 32.
_EFFORTS = sorted(((lists, factor) for lists in (4, 8, 16, MOST_LISTS) for factor in (8, 16, 32)), key=sum)
# Where candidates are ranked again by keys that are read from the datastore for it.
_ON_DISK_EFFORTS = sorted(((lists, factor) for lists in (4, 8, 16, MOST_LISTS) for factor in (4, 8, 16)), key=sum)


def usual_effort(nprobe: int | None, *, on_disk: bool) -> tuple[int, int]:
    """Lists to look into and candidates per neighbour where they are not chosen."""
    return nprobe or MOST_LISTS, ON_DISK_K_FACTOR if on_disk else K_FACTOR


def choose_effort(search: FaissSearch, test: RecallTest, least: float) -> Measurement:
    """Set the least effort with which *search* finds enough, or the one with which it finds most.

    Args:
        search: an index on the CPU.
        test: what it has to find.
        least: recall that is wanted beyond what is enough.
    """
    best: tuple[Measurement, int, int] | None = None
    tried = set()
    for lists, factor in _ON_DISK_EFFORTS if search.ranks_by_keys else _EFFORTS:
        search.set_effort(lists, factor)
        if search.effort in tried:  # an index with few lists, or without re-ranking
            continue
        tried.add(search.effort)
        measured = test.measure(search)
        if best is None or measured.recall > best[0].recall:
            best = measured, lists, factor
        if measured.recall >= max(ENOUGH, least):
            break
    assert best is not None
    search.set_effort(*best[1:])
    return best[0]
