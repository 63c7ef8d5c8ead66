"""Which entries share a cluster, looked up for many queries at once."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fairseq_knn.clustering import Clusters


class Members:
    """The entries of every cluster, of several datastores as if they were one.

    Args:
        clusters: of every datastore, in order.
        device: where they are kept.
    """

    def __init__(self, clusters: Sequence[Clusters], device: torch.device) -> None:
        counts = np.cumsum([0, *(each.count for each in clusters)])
        cluster = np.concatenate([each.cluster + offset for each, offset in zip(clusters, counts, strict=False)])
        sizes = np.bincount(cluster, minlength=int(counts[-1]))
        self.count = int(counts[-1])
        self._cluster = torch.from_numpy(cluster).to(device, torch.int32 if self.count < 2**31 else torch.int64)
        # One cluster more, without entries, for what is in none.
        self._offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(sizes), [len(cluster)]])).to(device)
        order = np.argsort(cluster, kind="stable")
        self._entries = torch.from_numpy(order.astype(np.int32 if len(order) < 2**31 else np.int64)).to(device)

    def of(self, pointers: Tensor, most: int) -> Tensor:
        """The members of the clusters that entries are in.

        Clusters that more of a row's entries are in come first, and among equals that of the nearer entry.

        Args:
            pointers: entries, nearest first, int64 (B, m); -1 for none.
            most: how many members of a row are wanted at most.

        Returns:
            int64 (B, n), n <= *most*, the entries of *pointers* among them; -1 for none.
        """
        cluster = self._cluster[pointers.clamp(min=0)].long().masked_fill(pointers < 0, self.count)
        clusters = cluster.gather(1, _most_frequent_first(cluster, self.count))
        sizes = self._offsets[clusters + 1] - self._offsets[clusters]
        # The same cluster again gives nothing new.
        ordered, places = clusters.sort(dim=1, stable=True)
        again = torch.zeros_like(ordered, dtype=torch.bool)
        again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
        sizes = sizes.masked_fill(torch.zeros_like(again).scatter(1, places, again), 0)
        ends = sizes.cumsum(dim=1)
        width = min(int(ends[:, -1].max()) if ends.numel() else 0, most)
        slots = torch.arange(width, device=pointers.device).expand(len(pointers), width).contiguous()
        which = torch.searchsorted(ends, slots, right=True).clamp(max=max(clusters.size(1) - 1, 0))
        inside = slots - (ends - sizes).gather(1, which)
        rows = self._offsets[clusters.gather(1, which)] + inside
        there = slots < ends[:, -1:]
        return self._entries[rows.masked_fill(~there, 0)].long().masked_fill(~there, -1)


def _most_frequent_first(cluster: Tensor, none: int) -> Tensor:
    """Places of a row's numbers in the order of how often they occur, stable; *none* comes last. Int64 (B, m)."""
    ordered, places = cluster.sort(dim=1, stable=True)
    begins = torch.ones_like(ordered, dtype=torch.bool)
    begins[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    group = begins.cumsum(dim=1) - 1
    frequency = torch.zeros_like(group).scatter_add(1, group, torch.ones_like(group)).gather(1, group)
    frequency = frequency.masked_fill(ordered == none, 0)
    by_place = torch.zeros_like(frequency).scatter(1, places, frequency)
    return by_place.argsort(dim=1, descending=True, stable=True)
