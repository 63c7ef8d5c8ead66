"""Filling the retrieval cache of a split with the base model, and making batches of it again."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq import utils
from fairseq.data import data_utils
from fairseq.distributed import utils as distributed
from torch import Tensor, nn

from fairseq_knn.combiners.narrowed import NarrowedLogProbs, narrow
from fairseq_knn.datastore import Datastore
from fairseq_knn.errors import UserError
from fairseq_knn.models.augmentation import Augmentation
from fairseq_knn.models.decoder_state import STATE
from fairseq_knn.models.knn_decoder import knn_decoder
from fairseq_knn.models.training_step import CachedPositions, check_retrieval
from fairseq_knn.retrieval import Neighbours, Retriever
from fairseq_knn.retrieval.cache import RetrievalCache
from fairseq_knn.tasks.knn.datastore_build import BuildProgress, split_digest

logger = logging.getLogger("fairseq_knn")

_HIGHEST = 8  # of the model's probabilities: what a robust combiner looks at
_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_BETWEEN_REPORTS = 30.0
_PATIENCE = 3600.0  # seconds: a shard takes minutes


class CachedRetrieval:
    """Queries, neighbours and log-probabilities of one split.

    Args:
        directory: of the cache of this split.
        model: frozen, on its device.
        datastores: that are searched.
        dataset: the split.
        split: its name.
        k: number of neighbours.
        max_positions: longer sentences are left out.

    Raises:
        ConfigurationError: the directory holds the retrieval of something else.
    """

    def __init__(
        self,
        directory: Path,
        *,
        model: nn.Module,
        datastores: Sequence[Datastore],
        dataset: Any,
        split: str,
        k: int,
        max_positions: Any,
    ) -> None:
        self._model, self._dataset, self._split, self._k = model, dataset, split, k
        self._max_positions = max_positions
        self._vocabulary = len(knn_decoder(model).dictionary)
        plan = {
            "model": str(knn_decoder(model).knn_fingerprint),
            "datastores": [store.digest for store in datastores],
            "key": datastores[0].key,
            "split": split,
            "data": split_digest(dataset),
            "vocabulary": self._vocabulary,
            "k": k,
            "limits": str(max_positions),
        }
        self._cache = RetrievalCache(directory, plan, len(dataset))

    def fill(
        self,
        retriever: Callable[[], Retriever],
        own: Callable[[Mapping[str, Any]], Tensor | None],
        *,
        max_tokens: int | None,
        max_sentences: int | None,
    ) -> None:
        """Write what is missing; in distributed training every process writes its share and waits for the others.

        Args:
            retriever: opens what searches.
            own: the entries that the positions of a batch themselves are.
            max_tokens, max_sentences: of a batch.
        """
        alone = not torch.distributed.is_initialized()
        rank, world = (
            (0, 1) if alone else (distributed.get_data_parallel_rank(), distributed.get_data_parallel_world_size())
        )
        pending = self._cache.pending(rank, world)
        if pending:
            with data_utils.numpy_seed(0):
                order = self._dataset.ordered_indices()
            order, _ = self._dataset.filter_indices_by_size(order, self._max_positions)
            progress = BuildProgress()
            ranges = [self._cache.sentence_range(shard) for shard in pending]
            progress.start(sum(last - first for first, last in ranges))
            logger.info(f"retrieving for {self._split!r} into {self._cache.directory}")
            for shard, (first, last) in zip(pending, ranges, strict=True):
                chosen = order[(order >= first) & (order < last)]
                batches = self._dataset.batch_by_size(
                    chosen, max_tokens=max_tokens, max_sentences=max_sentences, required_batch_size_multiple=1
                )
                self._fill_shard(shard, batches, retriever(), own, progress)
            progress.report(f"{self._split!r} is cached")
        self._wait()

    def _fill_shard(
        self,
        shard: int,
        batches: Sequence[Sequence[int]],
        retriever: Retriever,
        own: Callable[[Mapping[str, Any]], Tensor | None],
        progress: BuildProgress,
    ) -> None:
        first, last = self._cache.sentence_range(shard)
        lengths = np.zeros(last - first, np.int64)
        ids: list[int] = []
        parts: list[dict[str, np.ndarray]] = []
        for batch in batches:
            sample = self._dataset.collater([self._dataset[int(i)] for i in batch])
            if next(self._model.parameters()).is_cuda:
                sample = utils.move_to_cuda(sample)
            rows, counts = self._retrieve(sample, retriever, own(sample))
            ids.extend(sample["id"].tolist())
            lengths[sample["id"].cpu().numpy() - first] = counts
            parts.append(rows)
            progress.update(len(batch), int(counts.sum()))
        if not parts:
            self._cache.write(shard, lengths, {})
            return
        # From the order of the batches into that of the sentences.
        counts = lengths[np.array(ids) - first]
        begins = np.concatenate([[0], np.cumsum(counts)])
        by_sentence = np.argsort(ids, kind="stable")
        order = np.concatenate([np.arange(begins[i], begins[i + 1]) for i in by_sentence])
        arrays = {name: np.concatenate([part[name] for part in parts])[order] for name in parts[0]}
        self._cache.write(shard, lengths, arrays)

    @torch.no_grad()
    def _retrieve(
        self, sample: Mapping[str, Any], retriever: Retriever, own: Tensor | None
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Rows of every position that is not padding, and how many each sentence has."""
        self._model.eval()
        decoder = knn_decoder(self._model)
        net_output = self._model(**sample["net_input"])
        target = sample["target"]
        real = target.ne(decoder.knn_padding)
        query = net_output[1][STATE].query[real]
        log_probs = decoder.knn_model_log_probs(net_output, sample)[real]
        neighbours = retriever.retrieve(query, None, None if own is None else own[real])
        check_retrieval(query, neighbours)
        narrowed = narrow(log_probs, target[real], neighbours, _HIGHEST)
        rows = {
            "query": query.to(torch.float16),
            "ids": neighbours.ids,
            "distances": neighbours.distances,
            "columns": narrowed.columns.to(torch.int16),
            "log_probs": narrowed.log_probs,
            "rest": narrowed.rest,
            "others": narrowed.others.to(torch.int32),
        }
        return {name: row.cpu().numpy() for name, row in rows.items()}, real.sum(dim=-1).cpu().numpy()

    def _wait(self) -> None:
        """Until the other processes have written their shares; no collective, whose time limit that could exceed.

        Raises:
            UserError: nothing has been written for long, so a process must have died.
        """
        reported = advanced = time.monotonic()
        missing = len(self._cache.pending())
        while missing:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            now = time.monotonic()
            if (left := len(self._cache.pending())) < missing:
                missing, advanced = left, now
            if now - advanced > _PATIENCE:
                raise UserError(
                    f"{self._cache.directory} lacks {missing} shards, and no other process has written one for "
                    f"{_PATIENCE // 60:.0f} minutes: see the logs of the other processes, and start again; what is "
                    "written is kept"
                )
            if now - reported > _SECONDS_BETWEEN_REPORTS:
                reported = now
                logger.info(f"waiting for the other processes to fill {self._cache.directory}")

    def positions(self, sample: Mapping[str, Any], augmentation: Augmentation | None) -> CachedPositions:
        """What was retrieved for a batch.

        Args:
            sample: the batch.
            augmentation: gives the neighbours' keys and probabilities, if the combiner needs any.
        """
        target = sample["target"]
        lengths = target.ne(knn_decoder(self._model).knn_padding).sum(dim=-1)
        rows = self._cache.read(sample["id"].cpu().numpy(), lengths.cpu().numpy())
        tensors = {name: torch.from_numpy(row).to(target.device, non_blocking=True) for name, row in rows.items()}
        columns = tensors["columns"].long()
        narrowed = NarrowedLogProbs(tensors["log_probs"], columns, tensors["rest"], tensors["others"].long())
        neighbours = Neighbours(tensors["distances"], tensors["ids"], columns)
        if augmentation is not None:
            neighbours = augmentation.recall(neighbours)
        return CachedPositions(tensors["query"].float(), narrowed.name_columns(neighbours), narrowed)
