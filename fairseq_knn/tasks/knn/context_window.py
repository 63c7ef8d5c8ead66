"""Blocks of a text with what comes before them."""

from typing import Any

import torch
from fairseq.data import FairseqDataset
from torch import Tensor, nn


class ContextWindow(FairseqDataset):
    """What ``--context-window`` asks for, from the text itself.

    Stock's ``LMContextWindowDataset`` takes the context from the batch that was collated before. That is another one as
    soon as batches are divided among shards or workers, or a build goes on in the middle.

    Args:
        dataset: stock's ``MonolingualDataset``.
        tokens_per_sample: longest block; of a longer one the context gets shorter.
        context_window: how many tokens come before a block at most.
    """

    def __init__(self, dataset: Any, tokens_per_sample: int, context_window: int) -> None:
        self.dataset = dataset
        self._longest, self._window = tokens_per_sample + context_window, context_window

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.dataset[index]
        source, target = item["source"], item["target"]
        context = self._before(index, min(self._window, self._longest - len(source)))
        unscored = target.new_full((len(context),), self.dataset.vocab.pad())
        return {
            **item,
            "source": torch.cat([context, source]),
            "target": torch.cat([unscored, target]),
            "start": len(context),
        }

    def _before(self, index: int, wanted: int) -> Tensor:
        """The last inputs before a block, (at most *wanted*,)."""
        parts = [self.dataset[index]["source"][:0]]
        while wanted > 0 and index > 0:
            index -= 1
            part = self.dataset[index]["source"][-wanted:]
            parts.insert(0, part)
            wanted -= len(part)
        return torch.cat(parts)

    def collater(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = self.dataset.collater(samples)
        if not batch:
            return batch
        starts = [sample["start"] for sample in samples]
        # As wide as stock makes them, so that sums are rounded as there.
        width = self._window + max(len(sample["source"]) - start for sample, start in zip(samples, starts, strict=True))
        for tensors, name in ((batch["net_input"], "src_tokens"), (batch, "target")):
            missing = width - tensors[name].size(1)
            tensors[name] = nn.functional.pad(tensors[name], (0, missing), value=self.dataset.vocab.pad())
        batch["start_indices"] = starts
        batch["ntokens"] -= sum(starts)
        return batch

    def __len__(self) -> int:
        return len(self.dataset)

    def num_tokens(self, index: int) -> int:
        return int(self.dataset.num_tokens(index))

    def size(self, index: int) -> int:
        return int(self.dataset.size(index))

    @property
    def sizes(self) -> Any:
        return self.dataset.sizes

    def ordered_indices(self) -> Any:
        """In the order of the text, as stock."""
        return torch.arange(len(self.dataset)).numpy()

    @property
    def supports_prefetch(self) -> bool:
        return False
