"""Flags of language sampling: those of the authors' program, each one implemented, mapped to stock, or refused."""

from argparse import SUPPRESS, ArgumentParser, Namespace
from dataclasses import dataclass
from typing import Any

from fairseq_knn.sampling.actors import LANGUAGE_ACTORS
from fairseq_knn.sampling.gradients import SIMILARITIES
from fairseq_knn.sampling.instance_actors import INSTANCE_ACTORS
from fairseq_knn.sampling.instance_actors.settings import SCORE_TYPES
from fairseq_knn.sampling.utility import UTILITIES

PRETRAIN_TYPES = ("datasize", "lan_dist")


@dataclass(frozen=True)
class Refused:
    """A flag of the authors' program that this task does not have.

    Attributes:
        name: as on the command line.
        reason: why, and what to do instead; the end of a sentence.
        switch: takes no value.
        neutral: a value with which it does nothing, so that it is accepted.
    """

    name: str
    reason: str
    switch: bool = False
    neutral: str | None = None

    @property
    def attribute(self) -> str:
        return self.name.removeprefix("--").replace("-", "_")

    def refuses(self, given: Any) -> bool:
        """Whether the flag was given, with a value that would do something."""
        if not given or self.neutral is None:
            return bool(given)
        try:
            return float(given) != float(self.neutral)
        except ValueError:
            return bool(given != self.neutral)


_ONE_ACTOR = "there is one actor: choose it with --data-actor"
_TCS = "target-conditioned sampling (Wang and Neubig 2019) is another method: leave it out"
REFUSED = (
    Refused("--extra-update-language-sampling", _ONE_ACTOR, neutral="-1"),
    Refused("--extra-data-actor", _ONE_ACTOR),
    Refused(
        "--loss-weight",
        "the authors' last program reads it nowhere: use --utility-type min-half, or --language-weight",
    ),
    Refused("--exact-update", "that is MultiDDS with its look-ahead: leave --data-actor-multilin out", switch=True),
    Refused("--discount-grad", "gradients are computed anew for every reward: leave it out", switch=True),
    Refused("--a0", "it belongs to --discount-grad: leave it out", neutral="0.05"),
    Refused("--a1", "it belongs to --discount-grad: leave it out", neutral="0.95"),
    Refused("--no-dev", "a reward is what training does for development data: leave it out", switch=True),
    Refused("--layerwise-dds", "the languages have one distribution for the whole model: leave it out", switch=True),
    Refused(
        "--alpha-p",
        "its documentation says interpolation while the program multiplied, whatever its value: leave it out",
        neutral="0",
    ),
    Refused(
        "--sample-tag-prob",
        "a sentence is always translated into the language of its own tag: leave it out",
        neutral="-1",
    ),
    Refused("--data-condition", _TCS, neutral="target"),
    Refused(
        "--eval-bleu",
        "stock fairseq validates this task by its loss: score the translations of fairseq-generate",
        switch=True,
    ),
    Refused(
        "--only-load-data-actor",
        "an actor belongs to the model it was trained beside: continue with its whole checkpoint in --save-dir",
        switch=True,
    ),
    Refused("--fix-norm", "it is not a part of the published systems: leave it out"),
)

# Flags that are accepted and say what this task does anyway, or what never had an effect.
WITHOUT_EFFECT = {
    "--share-encoders": "one encoder serves all languages, always",
    "--share-decoders": "one decoder serves all languages, always",
    "--pretrain-data-actor": "the actor starts at the distribution of --pretrain-type, exactly, without training",
    "--lr-shrink": "the authors' scheduler overwrote what it did",
    "--lr-threshold": "the authors' scheduler overwrote what it did",
}


def add_dds_arguments(parser: ArgumentParser) -> None:
    """Add the flags to a parser that has those of the stock task."""
    add = parser.add_argument
    add(
        "--dataset-type",
        choices=("multi", "round_robin", "tcs"),
        help="multi: draw the languages at random, by --datasize-t and the data actor; implied by these. Left out: as "
        "stock's --sampling-method says",
    )
    add(
        "--datasize-t",
        type=float,
        metavar="T",
        help="the languages' probabilities are, or start, in proportion to size^(1/T): 1 proportional, 5 the usual "
        "temperature; default: uniform",
    )
    add(
        "--sample-instance",
        action="store_true",
        help="draw a language for every sentence, so that batches mix them (default: a language for every batch)",
    )
    add(
        "--update-language-sampling",
        type=int,
        default=-1,
        metavar="K",
        help="update the data actor, and with it the probabilities, every K updates of the model (default: -1, never)",
    )
    add(
        "--data-actor",
        choices=(*LANGUAGE_ACTORS, *INSTANCE_ACTORS),
        help="what learns the probabilities of languages, or (" + ", ".join(INSTANCE_ACTORS) + ") scores sentences",
    )
    add("--data-actor-lr", type=float, default=0.01, metavar="LR", help="learning rate of the actor (Adam)")
    add("--data-actor-optim-step", type=int, default=1, metavar="N", help="the actor's steps in every update of it")
    add(
        "--data-actor-multilin",
        action="store_true",
        help="MultiDDS-S: a language's reward is the mean similarity of its gradient with that of every development "
        "set (default: MultiDDS, with all development sets together after a step on the language)",
    )
    add(
        "--utility-type",
        choices=UTILITIES,
        default="ave",
        help="which development languages count: all (ave), the half with the highest losses (min-half) or the lowest "
        "(max-half), or the one in the middle",
    )
    add(
        "--switch-obj-epoch",
        type=int,
        default=1,
        metavar="E",
        help="all development languages count until this epoch, then --utility-type",
    )
    add("--grad-sim", choices=SIMILARITIES, default="cosine", help="similarity of gradients")
    add("--loss-steps", type=int, default=1, metavar="N", help="small batches a gradient for a reward is the mean of")
    add("--scale-reward", action="store_true", help="weight each language's reward with its probability (REINFORCE)")
    add("--baseline", action="store_true", help="subtract the running mean of the rewards")
    add(
        "--language-weight",
        metavar="W,W,...",
        help="weights of the development languages, in the order of --eval-lang-pairs",
    )
    add(
        "--eval-lang-pairs",
        metavar="PAIRS",
        help="those of --lang-pairs that have development data (default: all)",
    )
    add("--pretrain-data-actor", action="store_true", help=WITHOUT_EFFECT["--pretrain-data-actor"])
    add(
        "--pretrain-type",
        choices=PRETRAIN_TYPES,
        default="datasize",
        help="where the actor starts: at the distribution of --datasize-t, or at --lan-dists",
    )
    add("--lan-dists", metavar="W,W,...", help="with --pretrain-type lan_dist: weights in the order of --lang-pairs")
    add("--feature-type", default="ones", metavar="ones", help="input of the actor: ones; others are refused")
    add(
        "--data-actor-embed-dim",
        type=int,
        default=32,
        metavar="D",
        help="width of the actors lan, ave_emb, transformer",
    )
    add("--lan-embed-dim", type=int, metavar="D", help="lan: width of a language's vector (default: the actor's width)")
    add(
        "--embedding-file", metavar="FILE", help="lan: a line of numbers for every language, beside the learned vectors"
    )
    add(
        "--data-actor-model-embed",
        type=int,
        default=0,
        metavar="0|1",
        help="1: an actor of sentences reads the model's own embeddings, which the actor does not train",
    )
    add("--data-actor-embed-grad", type=int, default=1, metavar="0|1", help="0: the actor's embeddings stay random")
    add("--out-score-type", choices=SCORE_TYPES, default="sigmoid", help="what the score of a sentence is")
    add(
        "--data-actor-step-update",
        action="store_true",
        help="train the actor of sentences (" + ", ".join(INSTANCE_ACTORS) + ") beside the model, batch by batch",
    )
    add(
        "--data-filter-percentage",
        type=float,
        default=-1.0,
        metavar="P",
        help="share of every language's training sentences to leave out, the lowest scored (0 to 1)",
    )
    add("--select-by-dds-epoch", type=int, default=-1, metavar="E", help="leave them out from this epoch on")
    add("--random-data-filter", action="store_true", help="leave out sentences at random instead")
    add("--random-data-filter-by-len", action="store_true", help="the same, as many of every length")
    add("--scale-norm", action="store_true", help="ScaleNorm instead of layer normalisation (Nguyen and Salazar 2019)")
    for name in ("--share-encoders", "--share-decoders"):
        add(name, action="store_true", help=WITHOUT_EFFECT[name])
    for refused in REFUSED:
        text = f"not supported: {refused.reason}"
        if refused.switch:
            add(refused.name, action="store_true", help=text)
        else:
            add(refused.name, help=text)


def add_scheduler_arguments(parser: ArgumentParser) -> None:
    """Accept flags of the authors' scheduler, unless one of stock's has them."""
    for name in ("--lr-shrink", "--lr-threshold"):
        if name not in parser._option_string_actions:
            # Without a default: fairseq takes what is in the namespace for its own schedulers.
            parser.add_argument(name, type=float, default=SUPPRESS, help=WITHOUT_EFFECT[name])


def samples_languages(args: Namespace) -> bool:
    """Whether languages are drawn here, rather than as stock does."""
    return (
        args.dataset_type is not None
        or args.sample_instance
        or args.datasize_t is not None
        or args.update_language_sampling != -1
        or args.data_actor is not None
        or args.data_filter_percentage > 0
    )
