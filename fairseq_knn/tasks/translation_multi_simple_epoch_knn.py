"""Multilingual translation with a datastore."""

from argparse import ArgumentParser

from fairseq.dataclass.utils import gen_parser_from_dataclass
from fairseq.tasks import register_task
from fairseq.tasks.translation_multi_simple_epoch import TranslationMultiSimpleEpochTask

from fairseq_knn.tasks.knn_config import KnnConfig
from fairseq_knn.tasks.knn_task import KnnTask


@register_task("translation_multi_simple_epoch_knn")
class TranslationMultiSimpleEpochKnnTask(KnnTask, TranslationMultiSimpleEpochTask):
    """Stock ``translation_multi_simple_epoch`` with nearest-neighbour retrieval."""

    knn_trains_with = "train the combiner with --task translation_knn, one language pair at a time"
    knn_trains = False  # its batches come from a sampler of many directions, of which a cache has no sentence numbers

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        TranslationMultiSimpleEpochTask.add_args(parser)
        gen_parser_from_dataclass(parser, KnnConfig())
