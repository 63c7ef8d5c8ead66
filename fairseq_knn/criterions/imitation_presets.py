"""The published names of imitation, each the one criterion with other defaults."""

from typing import Any, NoReturn

from fairseq.criterions import register_criterion

from fairseq_knn.criterions.imitation_config import ImitationConfig, preset
from fairseq_knn.criterions.imitation_kd import ImitationCriterion
from fairseq_knn.errors import ConfigurationError

register_criterion("imitation_kd", dataclass=ImitationConfig)(ImitationCriterion)


def _register(name: str, class_name: str, description: str, **defaults: Any) -> None:
    dataclass = preset(f"{class_name}Config", description, **defaults)
    # fairseq wants a class of its own for every name.
    criterion = type(f"{class_name}Criterion", (ImitationCriterion,), {"__doc__": description, "__module__": __name__})
    register_criterion(name, dataclass=dataclass)(criterion)


_register("imit_kd", "ImitKd", "ImitKD-optimal: the translation expert's likeliest token after a mixture of prefixes.")
_register(
    "imit_kd_CE",
    "ImitKdCe",
    "ImitKD-full: the translation expert's distribution after a mixture of prefixes.",
    kd_expert_output="full",
)
_register(
    "imit_kd_ast",
    "ImitKdAst",
    "ImitKD-full with an expert that hears the audio, too.",
    kd_expert_output="full",
    kd_expert_input="audio",
)
_register(
    "imit_kd_ast_pure_kd",
    "ImitKdAstPureKd",
    "Word-level distillation from an expert that hears the audio, too.",
    kd_expert_output="full",
    kd_expert_input="audio",
    kd_context="reference",
)
_register(
    "kd",
    "Kd",
    "Word-level distillation: the translation expert's distribution after reference prefixes.",
    kd_expert_output="full",
    kd_context="reference",
)
_register(
    "imit_pipeline_nmt_training",
    "ImitPipelineNmtTraining",
    "ImitKD-full for the translation model of a cascade, which reads transcripts of speech recognition.",
    kd_expert_output="full",
)

_SEQUENCES = (
    "translate with fairseq-generate, put that into a manifest with `fairseq-knn st-data replace`, then use it with "
)
_SCHEDULE = "use --criterion imit_kd_CE, whose schedule decides how much is the student's"
_TRANSCRIPTS = (
    "transcribe with fairseq-generate, put that into the column src_text with `fairseq-knn st-data replace`, and train "
    "on it with "
)

# Criterions of the original code that are not offered, and what there is instead.
REPLACED = {
    "imit_kd_copy_expert_nll": "use --criterion kd --kd-expert-output argmax",
    "imit_kd_mixer": "use --criterion imit_kd or imit_kd_CE with --kd-mixing loss",
    "imit_kd_mixer_nll": "use --criterion imit_kd --kd-mixing loss",
    "imit_kd_CE_added_nll": "use --criterion imit_kd_CE (its loss had the sign of the references' part wrong)",
    "imit_kd_CE_generated_dataset": _SEQUENCES + "--criterion imit_kd_CE",
    "imit_kd_always_correct": "use --criterion imit_kd_CE --kd-context student",
    "imit_kd_always_correct_asr_transcripts": _TRANSCRIPTS + "--criterion imit_kd_CE --kd-context student",
    "imit_kd_checked_predictions": _SCHEDULE,
    "imit_kd_checked_predictions_weighted": _SCHEDULE,
    "imit_kd_checked_predictions_always_ce_added": "use --criterion imit_kd_CE --kd-mixing loss",
    "imit_kd_checked_predictions_weighted_original_ce_added": "use --criterion imit_kd_CE --kd-mixing loss",
    "imit_kd_beam": "use --criterion imit_kd",
    "imit_kd_roll_out_expert": "use --criterion imit_kd_CE",
    "imit_kd_kl_div": "use --criterion imit_kd_CE (its gradient is that of the divergence)",
    "imit_asr_input_nmt": _TRANSCRIPTS + "--criterion kd",
    "imit_asr_input_nmt_generated_dataset": _TRANSCRIPTS + "--criterion kd",
    "imit_asr_input_nmt_controlled": _TRANSCRIPTS + "--criterion imit_kd_CE",
    "kd_asr_input_nmt": _TRANSCRIPTS + "--criterion kd",
    "imit_kd_translation": "use --task translation_imitkd --criterion imit_kd",
    "imit_kd_translation_beta_1": "use --task translation_imitkd --criterion kd",
    "imit_kd_translation_kl_div": "use --task translation_imitkd --criterion imit_kd_CE",
    "imit_pipeline_nmt_training_asr_input": "use --task translation_imitkd --criterion imit_pipeline_nmt_training",
    "imit_pipeline_asr_training": "train speech recognition with stock's criterions (it was an experiment)",
    "aggrevate": "use --criterion imit_kd_CE (it needs the expert's translation of every prefix)",
    "aggrevate_policy_gradient": "use --criterion imit_kd_CE (it needs the expert's translation of every prefix)",
}


def _refuse(name: str, replacement: str) -> None:
    def build_criterion(cls: type, cfg: Any, task: Any) -> NoReturn:
        raise ConfigurationError(f"--criterion {name} of the original code is not offered here: {replacement}")

    class_name = "".join(word.capitalize() for word in name.split("_"))
    namespace = {"build_criterion": classmethod(build_criterion), "__module__": __name__}
    criterion = type(f"{class_name}Refused", (ImitationCriterion,), namespace)
    register_criterion(name, dataclass=preset(f"{class_name}Config", replacement))(criterion)


for _name, _replacement in REPLACED.items():
    _refuse(_name, _replacement)
