"""What this package registers with fairseq, as one explicit list."""

import importlib

MODULES = (
    "fairseq_knn.models.architectures",  # transformer_wmt19_de_en
    "fairseq_knn.criterions.imitation_presets",  # imitation_kd, imit_kd, kd and the like
    "fairseq_knn.tasks.language_modeling_knn",
    "fairseq_knn.tasks.speech_to_text_imitkd",
    "fairseq_knn.tasks.speech_to_text_knn",
    "fairseq_knn.tasks.translation_imitkd",
    "fairseq_knn.tasks.translation_knn",
    "fairseq_knn.tasks.translation_multi_dds",
    "fairseq_knn.tasks.translation_multi_simple_epoch_knn",
    "fairseq_knn.tasks.translation_pairs",
)


def register() -> None:
    """Register everything with fairseq; may be called any number of times.

    Raises:
        UnsupportedVersionError: fairseq, torch or Python are not among the supported versions.
    """
    from fairseq_knn import compat, hooks

    hooks.install()  # first, so that the next line can end in one sentence
    compat.check_versions()
    compat.allow_fairseq_checkpoints()
    for module in MODULES:
        importlib.import_module(module)
