"""``fairseq-knn recipe``."""

import argparse

NAME = "recipe"
HELP = "from a file of sentence pairs to a trained translation model: help, test, train, evaluate"

ACTIONS = {
    "help": "show the settings of all steps, or all about some",
    "test": "take one step or several, with what they need, and show what came out",
    "train": "train, or go on with a training that was interrupted",
    "evaluate": "translate the test data and score them",
}

_HOW = """\
Settings are defaults, over them those of RECIPE.yaml (none, one or several), over them step.name=value on the command
line; step=NAME chooses another component.

  fairseq-knn recipe help     [RECIPE.yaml] [STEP ...] [step.name=value ...]
      {help}
  fairseq-knn recipe test     [RECIPE.yaml] STEP ...   [step.name=value ...]
      {test}
  fairseq-knn recipe train    [RECIPE.yaml]            [step.name=value ...]
      {train}
  fairseq-knn recipe evaluate [RECIPE.yaml]            [step.name=value ...]
      {evaluate}

Begin with: fairseq-knn recipe help
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "From a file of sentence pairs to a trained translation model. Settings are defaults, over them those of "
        "RECIPE.yaml, over them step.name=value on the command line; step=NAME chooses another component. Training is "
        "stock fairseq-hydra-train, evaluation stock fairseq-generate."
    )
    parser.add_argument("action", nargs="?", choices=ACTIONS, metavar="ACTION", help=", ".join(ACTIONS))
    parser.add_argument(
        "arguments",
        nargs="*",
        metavar="RECIPE.yaml | STEP | step.name=value",
        help="in any order; what ends in .yaml or is a file is a recipe, what has a = is a setting",
    )


def run(args: argparse.Namespace) -> int:
    from fairseq_knn.cli.recipe.actions import ACT
    from fairseq_knn.cli.recipe.arguments import sort_out
    from fairseq_knn.errors import UserError
    from fairseq_knn.recipe import composing, resolving

    if args.action is None:
        print(_HOW.format(**ACTIONS), end="")
        return 0
    asked = sort_out(args.action, args.arguments)
    try:
        recipe = composing.compose(asked.files, asked.overrides)
        resolving.resolve(recipe)
        return ACT[args.action](recipe, asked.steps)
    except OSError as error:  # below a directory that may not be looked into, or with too long a name
        if error.filename is None:
            raise
        raise UserError(
            f"{error.filename} cannot be reached ({error.strerror}): correct the path, or mend its permissions"
        ) from error
