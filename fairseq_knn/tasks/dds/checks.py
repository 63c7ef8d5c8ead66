"""Whether the settings of language sampling go together."""

from argparse import Namespace

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.sampling.actors import LANGUAGE_ACTORS
from fairseq_knn.sampling.instance_actors import INSTANCE_ACTORS
from fairseq_knn.tasks.dds.flags import REFUSED, samples_languages


def check_dds(args: Namespace) -> None:
    """Refuse what is not supported, contradicts itself or is out of its range.

    Args:
        args: of a training.

    Raises:
        ConfigurationError: one sentence.
    """
    for refused in REFUSED:
        if refused.refuses(getattr(args, refused.attribute, None)):
            raise ConfigurationError(f"{refused.name} is not supported: {refused.reason}")
    if args.dataset_type not in (None, "multi"):
        raise ConfigurationError(
            f"--dataset-type {args.dataset_type} is not supported: multi draws languages at random; leave it out for "
            "stock's --sampling-method"
        )
    if args.feature_type != "ones":
        raise ConfigurationError(
            f"--feature-type {args.feature_type} is not supported: the actor's input is constant (in the authors' "
            "program, too, where nothing else ran); leave it out"
        )
    _check_ranges(args)
    _check_actor(args)
    _check_actor_settings(args)
    _check_filter(args)
    if samples_languages(args):
        _check_stock(args)


def _check_ranges(args: Namespace) -> None:
    if args.update_language_sampling < -1 or args.update_language_sampling == 0:
        raise ConfigurationError(
            f"--update-language-sampling {args.update_language_sampling} is no number of updates: pass 1 or more, or "
            "-1 (leave it out) for probabilities that stay as they are"
        )
    for name in ("data_actor_optim_step", "loss_steps", "data_actor_embed_dim", "switch_obj_epoch"):
        if getattr(args, name) < 1:
            raise ConfigurationError(f"{_flag(name)} is {getattr(args, name)}: pass 1 or more")
    if not 0 < args.data_actor_lr < float("inf"):
        raise ConfigurationError(f"--data-actor-lr is {args.data_actor_lr}: pass a number above 0")
    if args.datasize_t is not None and not args.datasize_t > 0:
        raise ConfigurationError(f"--datasize-t is {args.datasize_t}: pass a temperature above 0, or leave it out")
    if args.lan_dists is not None and args.update_language_sampling == -1:
        raise ConfigurationError(
            "--lan-dists is where an actor of languages starts, and there is none: pass --update-language-sampling K, "
            "or stock's --sampling-weights for weights that stay as they are"
        )
    if (args.pretrain_type == "lan_dist") != (args.lan_dists is not None):
        raise ConfigurationError(
            "--lan-dists and --pretrain-type lan_dist go together: pass both, or none of them to start at --datasize-t"
        )


def _check_actor(args: Namespace) -> None:
    kind, k = args.data_actor, args.update_language_sampling
    if k > 0 and kind not in LANGUAGE_ACTORS:
        named = "no --data-actor is named" if kind is None else f"--data-actor {kind} scores sentences"
        raise ConfigurationError(
            f"--update-language-sampling {k} updates an actor of languages, but {named}: pass one of "
            f"{', '.join(LANGUAGE_ACTORS)}"
        )
    if kind in LANGUAGE_ACTORS and k == -1:
        raise ConfigurationError(
            f"--data-actor {kind} learns every K updates of the model: pass --update-language-sampling K (1000 was "
            "published)"
        )
    if kind in INSTANCE_ACTORS and not args.data_actor_step_update:
        raise ConfigurationError(
            f"--data-actor {kind} scores sentences and learns with every batch: pass --data-actor-step-update"
        )
    if args.data_actor_step_update and kind not in INSTANCE_ACTORS:
        raise ConfigurationError(
            "--data-actor-step-update trains an actor that scores sentences, but --data-actor is "
            f"{kind or 'not given'}: pass one of {', '.join(INSTANCE_ACTORS)}"
        )


# Settings of some actors alone, with what they are when nobody gives them.
_OF_LANGUAGES = {
    "data_actor_optim_step": 1,
    "data_actor_multilin": False,
    "utility_type": "ave",
    "switch_obj_epoch": 1,
    "grad_sim": "cosine",
    "scale_reward": False,
    "baseline": False,
    "language_weight": None,
}
_OF_LANGUAGE_VECTORS = {"lan_embed_dim": None, "embedding_file": None}
_OF_SENTENCES = {"data_actor_model_embed": 0, "data_actor_embed_grad": 1, "out_score_type": "sigmoid"}
_OF_ALL = {"data_actor_lr": 0.01, "loss_steps": 1, "data_actor_embed_dim": 32}


def _check_actor_settings(args: Namespace) -> None:
    for settings, actors in (
        (_OF_LANGUAGES, tuple(LANGUAGE_ACTORS)),
        (_OF_LANGUAGE_VECTORS, ("lan",)),
        (_OF_SENTENCES, tuple(INSTANCE_ACTORS)),
        (_OF_ALL, (*LANGUAGE_ACTORS, *INSTANCE_ACTORS)),
    ):
        for name, default in settings.items():
            if getattr(args, name) != default and args.data_actor not in actors:
                named = "there is none" if args.data_actor is None else f"--data-actor is {args.data_actor}"
                raise ConfigurationError(
                    f"{_flag(name)} is a setting of the actor {' or '.join(actors)}, but {named}: leave it out, or "
                    "choose --data-actor"
                )
    for name in ("data_actor_model_embed", "data_actor_embed_grad"):
        if getattr(args, name) not in (0, 1):
            raise ConfigurationError(f"{_flag(name)} is {getattr(args, name)}: pass 0 or 1")


def _check_filter(args: Namespace) -> None:
    share, epoch = args.data_filter_percentage, args.select_by_dds_epoch
    at_random = args.random_data_filter or args.random_data_filter_by_len
    if share != -1 and not 0 < share < 1:
        raise ConfigurationError(
            f"--data-filter-percentage is {share:g}: pass a share below 1, as .2 for a fifth, or leave it out"
        )
    if share == -1:
        if epoch > 0 or at_random:
            raise ConfigurationError(
                "--select-by-dds-epoch and --random-data-filter leave out a share of the sentences: say which with "
                "--data-filter-percentage, as .2 for a fifth"
            )
        if args.data_actor_step_update:
            raise ConfigurationError(
                f"--data-actor {args.data_actor} scores sentences so that some are left out: say how many with "
                "--data-filter-percentage, and when with --select-by-dds-epoch"
            )
        return
    if args.random_data_filter and args.random_data_filter_by_len:
        raise ConfigurationError("--random-data-filter and --random-data-filter-by-len exclude each other: pass one")
    if not at_random and args.data_actor not in INSTANCE_ACTORS:
        raise ConfigurationError(
            f"--data-filter-percentage {share:g} needs scores of sentences: pass --data-actor "
            f"{' or '.join(INSTANCE_ACTORS)} with --data-actor-step-update, or --random-data-filter"
        )
    if epoch < (1 if at_random else 2):
        raise ConfigurationError(
            f"--data-filter-percentage {share:g} needs the epoch from which on sentences are left out: pass "
            f"--select-by-dds-epoch, {'1 or more' if at_random else '2 or more, as the actor learns before it'}"
        )


def _check_stock(args: Namespace) -> None:
    for name, neutral in (
        ("sampling_method", "concat"),
        ("sampling_weights", None),
        ("sampling_weights_from_file", None),
        ("virtual_epoch_size", None),
    ):
        if getattr(args, name, neutral) != neutral:
            raise ConfigurationError(
                f"{_flag(name)} is stock's way of sampling languages, and --dataset-type multi, --datasize-t and the "
                "data actor are this task's: pass one or the other"
            )
    sentences = getattr(args, "virtual_data_size", None)
    if sentences is not None and sentences < 1:
        raise ConfigurationError(
            f"--virtual-data-size is {sentences}: pass how many sentences an epoch has, or leave it out"
        )
    if getattr(args, "ddp_backend", None) == "fully_sharded" and args.data_actor is not None:
        raise ConfigurationError(
            "--ddp-backend fully_sharded spreads the parameters over processes, but a reward needs the whole gradient: "
            "use pytorch_ddp or legacy_ddp"
        )


def _flag(attribute: str) -> str:
    return f"--{attribute.replace('_', '-')}"
