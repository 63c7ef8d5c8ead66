"""``fairseq-knn tune``."""

import argparse
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

NAME = "tune"
HELP = "choose k, lambda and temperature on validation data, from one retrieval pass"
PASSES_ON = "fairseq-generate"  # arguments it does not know are fairseq's

_KS = (1, 2, 4, 8, 16, 32, 64)
_WEIGHTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
_TEMPERATURES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "fairseq-knn tune DATA --path BASE.pt --knn-datastore-path DIR [options of fairseq-generate]"
    parser.description = (
        "Scores the reference translations of --gen-subset (default: valid) with every combination of k, lambda and "
        "temperature. The datastore is searched once, with the largest k; the model runs once. Prints the flags of "
        "the setting with the lowest perplexity. All other arguments are those of fairseq-generate."
    )
    parser.add_argument("--ks", type=int, nargs="+", default=_KS, metavar="K", help=f"default: {_listed(_KS)}")
    parser.add_argument(
        "--lambdas",
        type=float,
        nargs="+",
        default=_WEIGHTS,
        metavar="L",
        help=f"default: {_listed(_WEIGHTS)}",
    )
    parser.add_argument(
        "--temperatures",
        type=float,
        nargs="+",
        default=_TEMPERATURES,
        metavar="T",
        help=f"default: {_listed(_TEMPERATURES)}",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the whole grid to this JSON file")


def run(args: argparse.Namespace) -> int:
    from fairseq_knn.combiners.grid import VanillaGrid
    from fairseq_knn.storage.atomic import write_json

    _check(args)
    grid = VanillaGrid(sorted(set(args.ks)), sorted(set(args.lambdas)), sorted(set(args.temperatures)))
    _score(grid, args.passed_on)
    points = grid.points()
    best = points[0]
    print(f"{grid.tokens:,} reference tokens; loss in nats per token; the model alone: {grid.model_loss:.4f}")
    print(f"{'k':>5} {'lambda':>7} {'temperature':>12} {'loss':>9} {'perplexity':>11}")
    for point in points[:10]:
        print(f"{point.k:5} {point.weight:7g} {point.temperature:12g} {point.loss:9.4f} {point.perplexity:11.2f}")
    _warn_at_border(grid, best)
    print(f"best: --knn-k {best.k} --knn-lambda {best.weight:g} --knn-temperature {best.temperature:g}")
    if args.output is not None:
        content = {
            "tokens": grid.tokens,
            "model_loss": grid.model_loss,
            "grid": [asdict(p) for p in points],
        }
        write_json(args.output, {**content, "best": asdict(best)})
    return 0


def _check(args: argparse.Namespace) -> None:
    from fairseq_knn.errors import ConfigurationError

    for flag, values, low, high, rule in (
        ("--ks", args.ks, 0.5, math.inf, "at least 1"),
        ("--lambdas", args.lambdas, 0, 1, "between 0 and 1, both excluded"),
        ("--temperatures", args.temperatures, 0, math.inf, "above 0"),
    ):
        wrong = [value for value in values if not low < value < high]
        if wrong:
            raise ConfigurationError(f"{flag} has {wrong[0]:g}, but every value must be {rule}")


def _score(grid: Any, arguments: list[str]) -> None:
    """Run the model over the references with stock fairseq's own loading, batching and options."""
    import torch
    from fairseq import checkpoint_utils, options, tasks, utils
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf
    from fairseq.logging import progress_bar

    from fairseq_knn.errors import ConfigurationError
    from fairseq_knn.models.decoder_state import STATE
    from fairseq_knn.models.knn_decoder import knn_decoder

    parser = options.get_generation_parser(default_task="translation_knn")
    parser.set_defaults(gen_subset="valid")
    parsed = options.parse_args_and_arch(parser, input_args=arguments)
    if not parsed.path:
        raise ConfigurationError("--path is missing: name the checkpoint of the base model")
    parsed.knn_k, parsed.knn_lambda = max(grid.ks), 0.5  # any lambda but 0, which would not search
    cfg = convert_namespace_to_omegaconf(parsed)
    use_cuda = torch.cuda.is_available() and not cfg.common.cpu
    task = tasks.setup_task(cfg.task)
    models, saved = checkpoint_utils.load_model_ensemble(utils.split_paths(cfg.common_eval.path), task=task)
    if len(models) > 1:
        raise ConfigurationError(f"--path names {len(models)} models: tune each with its own datastore")
    task.load_dataset(cfg.dataset.gen_subset, task_cfg=saved.task)
    model = models[0].eval()
    if cfg.common.fp16:
        model.half()
    if use_cuda:
        model.cuda()
    decoder = knn_decoder(model)
    augmentation = decoder.knn_augmentation()
    assert augmentation is not None  # lambda is not 0
    if cfg.dataset.max_tokens is None and cfg.dataset.batch_size is None:
        cfg.dataset.max_tokens = 12000  # as fairseq-generate does
    batches = task.get_batch_iterator(
        dataset=task.dataset(cfg.dataset.gen_subset),
        max_tokens=cfg.dataset.max_tokens,
        max_sentences=cfg.dataset.batch_size,
        max_positions=utils.resolve_max_positions(task.max_positions(), model.max_positions()),
        ignore_invalid_inputs=cfg.dataset.skip_invalid_size_inputs_valid_test,
        num_workers=cfg.dataset.num_workers,
    ).next_epoch_itr(shuffle=False)
    with torch.no_grad():
        for sample in progress_bar.progress_bar(batches, default_log_format="tqdm", prefix="scoring"):
            sample = utils.move_to_cuda(sample) if use_cuda else sample
            task.count_sentences(sample)
            net_output = model(**sample["net_input"])
            target = sample["target"]
            real = target.ne(task.target_dictionary.pad())
            log_probs = decoder.knn_model_log_probs(net_output, sample).gather(-1, target.unsqueeze(-1)).squeeze(-1)
            neighbours = augmentation.retriever.retrieve(net_output[1][STATE].query[real])
            matches = neighbours.found & (neighbours.values == target[real].unsqueeze(-1))
            grid.add(log_probs[real], neighbours.distances, matches)


def _warn_at_border(grid: Any, best: Any) -> None:
    for flag, values, value in (
        ("--ks", grid.ks, best.k),
        ("--lambdas", grid.weights, best.weight),
        ("--temperatures", grid.temperatures, best.temperature),
    ):
        if len(values) > 1 and value in (values[0], values[-1]):
            print(f"the best value is at the border of {flag}: values beyond {value:g} may be better still")


def _listed(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)
