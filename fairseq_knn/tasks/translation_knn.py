"""Bilingual translation with a datastore."""

from dataclasses import dataclass

from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask

from fairseq_knn.tasks.knn.config import KnnConfig
from fairseq_knn.tasks.knn.task import KnnTask


@dataclass
class TranslationKnnConfig(KnnConfig, TranslationConfig):
    """Settings of stock ``translation`` and of retrieval."""


@register_task("translation_knn", dataclass=TranslationKnnConfig)
class TranslationKnnTask(KnnTask, TranslationTask):
    """Stock ``translation`` with nearest-neighbour retrieval (kNN-MT)."""
