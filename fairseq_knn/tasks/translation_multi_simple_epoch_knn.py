"""Multilingual translation with a datastore."""

from argparse import ArgumentParser
from dataclasses import dataclass
from typing import Any

from fairseq.dataclass.utils import gen_parser_from_dataclass
from fairseq.tasks import register_task
from fairseq.tasks.translation_multi_simple_epoch import TranslationMultiSimpleEpochTask

from fairseq_knn.tasks.argparse_dataclass import dataclass_of, namespace_of
from fairseq_knn.tasks.knn.config import KnnConfig
from fairseq_knn.tasks.knn.task import KnnTask
from fairseq_knn.tasks.scale_normed import ScaleNormed

TranslationMultiSimpleEpochConfig = dataclass_of(
    "TranslationMultiSimpleEpochConfig",
    TranslationMultiSimpleEpochTask.add_args,
    interpolated={
        "seed": "common.seed",
        "dataset_impl": "dataset.dataset_impl",
        "train_subset": "dataset.train_subset",
    },
)


@dataclass
class TranslationMultiSimpleEpochKnnConfig(KnnConfig, TranslationMultiSimpleEpochConfig):  # type: ignore[misc,valid-type]
    """Settings of stock ``translation_multi_simple_epoch`` and of retrieval."""


@register_task("translation_multi_simple_epoch_knn", dataclass=TranslationMultiSimpleEpochKnnConfig)
class TranslationMultiSimpleEpochKnnTask(KnnTask, ScaleNormed, TranslationMultiSimpleEpochTask):
    """Stock ``translation_multi_simple_epoch`` with nearest-neighbour retrieval."""

    knn_trains_with = "train the combiner with --task translation_knn, one language pair at a time"
    knn_trains = False  # its batches come from a sampler of many directions, of which a cache has no sentence numbers

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        gen_parser_from_dataclass(parser, TranslationMultiSimpleEpochKnnConfig())

    @classmethod
    def setup_task(cls, cfg: Any, **kwargs: Any) -> Any:
        return super().setup_task(namespace_of(cfg, TranslationMultiSimpleEpochTask.add_args), **kwargs)
