"""What fairseq-generate is called with."""

from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf

from fairseq_knn.recipe import evaluation
from fairseq_knn.recipe.composing import compose


def test_the_settings_of_the_task_hold_where_it_translates() -> None:
    import fairseq_knn.tasks.translation_pairs  # noqa: F401

    given = ["truncate_source=true", "left_pad_source=false", "load_alignments=false", "max_target_positions=7"]
    flags = evaluation._task_flags(compose([], [f"task.{setting}" for setting in given]))
    arguments = ["data", "--path", "x", "--task", "translation_pairs", *flags]
    args = options.parse_args_and_arch(options.get_generation_parser(), arguments)
    task = convert_namespace_to_omegaconf(args).task
    assert (task.truncate_source, task.left_pad_source, task.load_alignments) == (True, False, False)
    assert task.max_target_positions == 7
