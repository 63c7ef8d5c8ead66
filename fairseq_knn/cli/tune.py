"""``fairseq-knn tune``."""

import argparse
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fairseq_knn.combiners.grid import GridPoint, VanillaGrid

NAME = "tune"
HELP = "choose k, lambda and temperature on validation data, from one retrieval pass"
PASSES_ON = "fairseq-generate"  # arguments it does not know are fairseq's

_KS = (1, 2, 4, 8, 16, 32, 64)
_NEIGHBOURS = 1 << 21  # judged at a time
_LANGUAGE_MODEL_KS = (8, 16, 32, 64, 128, 256, 512, 1024)  # those there are entries for
_WEIGHTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
_TEMPERATURES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "fairseq-knn tune DATA --path BASE.pt --knn-datastore-path DIR [options of fairseq-generate]"
    parser.description = (
        "Scores the reference translations of --gen-subset (default: valid) with every combination of k, lambda and "
        "temperature. The datastore is searched once, with the largest k; the model runs once. Prints the flags of "
        "the setting with the lowest perplexity, and what --knn-skip-threshold would save and cost with it. All other "
        "arguments are those of fairseq-generate, or, with --task language_modeling_knn, of fairseq-eval-lm."
    )
    parser.add_argument(
        "--ks",
        type=int,
        nargs="+",
        metavar="K",
        help=f"default: {_listed(_KS)}; with a task of language models: {_listed(_LANGUAGE_MODEL_KS)}",
    )
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
    parser.add_argument(
        "--heat-map",
        type=Path,
        metavar="FILE",
        help="draw perplexity over lambda and temperature, a panel for each k, to this PNG file",
    )


def run(args: argparse.Namespace) -> int:
    from fairseq_knn.cli.heat_map import draw_heat_map
    from fairseq_knn.combiners.grid import VanillaGrid
    from fairseq_knn.storage.atomic import check_writable, write_json

    args.ks = args.ks or _default_ks(args.passed_on)
    _check(args)
    for target in (args.output, args.heat_map):
        if target is not None:
            check_writable(target)
    grid = VanillaGrid(sorted(set(args.ks)), sorted(set(args.lambdas)), sorted(set(args.temperatures)))
    _score(grid, args.passed_on)
    points = grid.points()
    best = points[0]
    print(f"{grid.tokens:,} reference tokens; loss in nats per token; the model alone: {grid.model_loss:.4f}")
    print(f"{'k':>5} {'lambda':>7} {'temperature':>12} {'loss':>9} {'perplexity':>11}")
    for point in points[:10]:
        print(f"{point.k:5} {point.weight:7g} {point.temperature:12g} {point.loss:9.4f} {point.perplexity:11.2f}")
    _warn_at_border(grid, best)
    skipping = grid.skipping(best)
    print("with the best setting, and no search where the model gives one token at least the threshold:")
    print(f"{'--knn-skip-threshold':>20} {'skipped':>8} {'perplexity':>11}")
    for skip in skipping:
        print(f"{skip.threshold:20g} {skip.skipped:8.1%} {math.exp(min(skip.loss, 700)):11.2f}")
    print(f"best: --knn-k {best.k} --knn-lambda {best.weight:g} --knn-temperature {best.temperature:g}")
    if args.output is not None:
        content = {
            "tokens": grid.tokens,
            "model_loss": grid.model_loss,
            "grid": [asdict(p) for p in points],
            "skipping": [asdict(s) for s in skipping],
        }
        write_json(args.output, {**content, "best": asdict(best)})
    if args.heat_map is not None:
        draw_heat_map(grid, args.heat_map)
        print(f"heat map: {args.heat_map}")
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


def _score(grid: "VanillaGrid", arguments: list[str]) -> None:
    """Run the model over the references with stock fairseq's own loading, batching and options."""
    import torch
    from fairseq.logging import progress_bar

    from fairseq_knn.cli.stock import load_stock_run
    from fairseq_knn.models.decoder_state import STATE
    from fairseq_knn.models.knn_decoder import knn_decoder

    # Any lambda but 0, which would not search.
    settings = {"knn_mode": "inference", "knn_k": max(grid.ks), "knn_lambda": 0.5}
    stock = load_stock_run(arguments, {"gen_subset": "valid"}, settings)
    decoder = knn_decoder(stock.model)
    augmentation = decoder.knn_augmentation()
    assert augmentation is not None  # lambda is not 0
    if augmentation.automaton is not None:
        print("note: every position is searched here, --knn-retomaton or not: what is best with pointers may differ")
    with torch.no_grad():
        for batch in progress_bar.progress_bar(stock.batches(), default_log_format="tqdm", prefix="scoring"):
            sample = stock.move(batch)
            stock.count(sample)
            net_output = stock.model(**sample["net_input"])
            state = net_output[1][STATE]
            # A language model's task knows which targets count.
            target = sample["target"] if state.target is None else state.target
            real = target.ne(stock.task.target_dictionary.pad())
            log_probs = decoder.knn_model_log_probs(net_output)
            own = log_probs.gather(-1, target.unsqueeze(-1)).squeeze(-1)[real]
            highest = log_probs.amax(-1)[real]
            query, target = state.query[real], target[real].unsqueeze(-1)
            for rows in torch.split(torch.arange(len(own)), max(1, _NEIGHBOURS // max(grid.ks))):
                neighbours = augmentation.retriever.retrieve(query[rows])
                matches = neighbours.found & (neighbours.values == target[rows])
                grid.add(own[rows], highest[rows], neighbours.distances, matches)


def _default_ks(arguments: list[str]) -> tuple[int, ...]:
    """As many neighbours as are usual, and as there are entries."""
    from fairseq_knn.datastore import LANGUAGE_MODEL, Datastore

    named = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    named.add_argument("--knn-datastore-path", default="")
    stores = [
        Datastore.load(path) for path in named.parse_known_args(arguments)[0].knn_datastore_path.split(":") if path
    ]
    if not any(store.plan is not None and store.plan.kind == LANGUAGE_MODEL for store in stores):
        return _KS
    entries = sum(store.entries for store in stores)
    return tuple(k for k in _LANGUAGE_MODEL_KS if k <= entries) or (entries,)


def _warn_at_border(grid: "VanillaGrid", best: "GridPoint") -> None:
    for flag, values, value in (
        ("--ks", grid.ks, best.k),
        ("--lambdas", grid.weights, best.weight),
        ("--temperatures", grid.temperatures, best.temperature),
    ):
        if len(values) > 1 and value in (values[0], values[-1]):
            print(f"the best value is at the border of {flag}: values beyond {value:g} may be better still")


def _listed(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)
