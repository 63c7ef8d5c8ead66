"""kNN-LM and RetoMaton with Hugging Face's transformers: train, save, index, cluster, evaluate, generate.

Each step is one option, and several can be given at once; they run in this order:

    --do_train                          fine-tune the model on the training text
    --save_knnlm_dstore                 one pass over --eval_subset: its datastore, in --dstore_dir
    --build_index                       the datastore's search index
    --cluster_dstore                    clusters of its entries, for RetoMaton
    --do_eval [--knn | --retomaton]     perplexity of --eval_subset
    --prompt TEXT                       what the model goes on with

Options have the names of knn-transformers' script of this name; docs/transformers.md tells of each what became of it.
@FILE stands for the options in a file, such as those in configs/knn_lm/transformers.
"""

import argparse
import json
import logging
import math
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clm_text import Text, Windows, counted
from clm_training import Training
from tqdm import tqdm

from fairseq_knn import Datastore, KNNSaver, KNNWrapper, RetomatonWrapper
from fairseq_knn.clustering import KMeans, build_clusters, import_members
from fairseq_knn.errors import ConfigurationError, UserError
from fairseq_knn.index.build import build_index
from fairseq_knn.storage.atomic import make_directory, write_json

logger = logging.getLogger("run_clm")

KEYS = {"last_ffn_input": "ffn_input", "last_ffn_output": "ffn_output", "decoder_output": "decoder_output"}
SPLITS = ("train", "validation", "test")


def load(args: argparse.Namespace) -> tuple[Any, Any]:
    """Model and tokenizer.

    Raises:
        ConfigurationError: transformers is not installed, or there is no such model.
    """
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise ConfigurationError(
            f"this needs the package transformers ({error}): pip install 'fairseq-knn[transformers]'"
        ) from None
    place = {"cache_dir": args.cache_dir, "revision": args.model_revision}
    dtype = torch.float16 if args.fp16 else torch.bfloat16 if args.bf16 else torch.float32
    try:
        tokenizer = AutoTokenizer.from_pretrained(args.tokenizer_name or args.model_name_or_path, **place)
        model = AutoModelForCausalLM.from_pretrained(args.model_name_or_path, dtype=dtype, **place)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{args.model_name_or_path} is not loaded ({str(error).strip().splitlines()[0]}): name a directory with a "
            "model and its tokenizer, or one of Hugging Face's hub"
        ) from error
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer))
    device = torch.device("cuda" if args.knn_gpu and torch.cuda.is_available() else "cpu")
    return model.to(device).eval(), tokenizer


def train(model: Any, tokenizer: Any, text: Text, args: argparse.Namespace) -> None:
    """Fine-tune with AdamW and a rate that falls linearly; the best epoch on the validation text stays in --output_dir.

    After every epoch all that is needed to go on is in --output_dir, so that an interrupted run, started again, goes
    on with the next.
    """
    if args.fp16:
        raise ConfigurationError("--fp16 is for evaluation here: train with --bf16 or in full precision")
    windows = text.windows("train")
    validation = text.windows("validation", args.stride)
    batches_per_epoch = -(-len(windows) // args.per_device_train_batch_size)
    progress = Training(model, args, batches_per_epoch)
    for epoch in range(progress.resume(), args.num_train_epochs):
        model.train()
        order = np.random.default_rng(args.seed + epoch).permutation(len(windows)).tolist()
        batches = windows.batches(order, args.per_device_train_batch_size)
        for batch in tqdm(batches, desc=f"epoch {epoch + 1}", total=batches_per_epoch, mininterval=5):
            progress.update(batch)
        model.eval()
        loss = evaluate(model, validation, args.per_device_eval_batch_size).loss
        logger.info(f"epoch {epoch + 1}: validation perplexity {math.exp(loss):.2f}")
        if progress.finish_epoch(epoch, loss):
            model.save_pretrained(args.output_dir)
            tokenizer.save_pretrained(args.output_dir)
        if progress.without_progress(args.patience):
            logger.info(f"no progress in {args.patience} epochs: training ends")
            break
    logger.info(f"best validation perplexity {math.exp(min(progress.losses)):.2f}; the model is in {args.output_dir}")
    best = type(model).from_pretrained(args.output_dir, dtype=model.dtype)
    model.load_state_dict(best.state_dict())
    model.eval()


@dataclass(frozen=True)
class Evaluation:
    """Mean loss in nats over the tokens that are predicted, how many they are, and how many a second."""

    loss: float
    tokens: int
    tokens_per_s: float


@torch.no_grad()
def evaluate(model: Any, windows: Windows, size: int) -> Evaluation:
    """Loss of a text under a model, whatever sits in it."""
    total, tokens, started = 0.0, 0, time.perf_counter()
    numbers = range(len(windows))
    for batch in tqdm(windows.batches(numbers, size), desc="evaluating", total=-(-len(windows) // size), mininterval=5):
        number = counted(batch)
        if number:
            output = model(**{name: tensor.to(model.device) for name, tensor in batch.items()})
            total += output.loss.item() * number
            tokens += number
    return Evaluation(total / tokens, tokens, tokens / (time.perf_counter() - started))


def save_datastore(model: Any, windows: Windows, args: argparse.Namespace) -> None:
    """One pass over the text; an interrupted one goes on when the same command is run again."""
    check_size(args, windows.predicted, f"the {args.eval_subset} text has {windows.predicted:,} tokens to predict")
    # With an overlap, every token but the first is predicted: the whole text is one document.
    whole = np.zeros(len(windows), np.int64) if windows.stride < windows.block else None
    saver = KNNSaver(
        args.dstore_dir,
        len(windows),
        key=KEYS[args.knn_keytype],
        documents=whole,
        split=args.eval_subset,
        data=windows.digest,
        overwrite=args.overwrite_dstore,
    )
    saver.break_into(model)
    try:
        for batch in windows.batches(range(saver.stored, len(windows)), args.per_device_eval_batch_size):
            with torch.no_grad():
                model(**{name: tensor.to(model.device) for name, tensor in batch.items()})
    finally:
        saver.break_out()
    log_probs = Datastore.load(args.dstore_dir).log_probs
    assert log_probs is not None
    logger.info(f"perplexity of what is stored, under the model alone: {math.exp(-np.mean(log_probs[:])):.4f}")


def check_size(args: argparse.Namespace, size: int, told: str) -> None:
    """--dstore_size is not needed; where it is given, it has to be right."""
    if args.dstore_size is not None and args.dstore_size != size:
        raise ConfigurationError(f"--dstore_size is {args.dstore_size:,}, but {told}: leave it out, it is counted")


def open_datastore(args: argparse.Namespace) -> Datastore:
    """The one in --dstore_dir."""
    datastore = Datastore.load(args.dstore_dir)
    check_size(args, datastore.entries, f"{args.dstore_dir} has {datastore.entries:,} entries")
    return datastore


def index_datastore(args: argparse.Namespace) -> None:
    """Build the search index."""
    spec = "auto"
    if args.ncentroids is not None or args.code_size is not None:
        spec = f"IVF{args.ncentroids or 4096},PQ{args.code_size or 64}"
    build_index(
        open_datastore(args),
        spec,
        device=args.knn_device,
        nprobe=args.probe,
        min_recall=args.min_recall,
        report=logger.info,
    )


def cluster_datastore(args: argparse.Namespace) -> None:
    """Cluster the entries by their keys."""
    datastore = open_datastore(args)
    sample = None if args.sample_size is None else min(args.sample_size, datastore.entries)
    settings = KMeans.of_store(datastore.entries, args.num_clusters, sample, seed=args.seed)
    build_clusters(datastore, args.members or "kmeans", settings, device=args.knn_device, report=logger.info)


def wrapper(args: argparse.Namespace) -> KNNWrapper | None:
    """What is to sit in the model, if anything."""
    if not args.knn and not args.retomaton:
        return None
    datastore = open_datastore(args)
    settings: dict[str, Any] = {
        "k": args.k,
        "lmbda": args.lmbda,
        "temperature": args.knn_temp,
        "nprobe": args.probe,
        "device": args.knn_device,
        "load": "ram" if args.move_dstore_to_mem else "mmap",
        "recompute_distances": args.recompute_dists,
    }
    if not args.retomaton:
        return KNNWrapper(datastore, **settings)
    clusters = args.members
    if clusters is not None and clusters.endswith(".pkl"):
        clusters = import_members(datastore, Path(clusters).stem, Path(clusters), report=logger.info).name
    return RetomatonWrapper(
        datastore,
        **settings,
        no_pointer=args.no_pointer,
        min_knns=args.min_knns,
        max_knns=args.max_knns,
        clusters=clusters,
    )


def evaluate_and_report(model: Any, text: Text, broken: KNNWrapper | None, args: argparse.Namespace) -> None:
    """Perplexity and what retrieval cost, in the log and in eval_results.json."""
    windows = text.windows(args.eval_subset, args.stride)
    result = evaluate(model, windows, args.per_device_eval_batch_size)
    figures = {
        "eval_subset": args.eval_subset,
        "eval_loss": round(result.loss, 6),
        "perplexity": round(math.exp(result.loss), 4),
        "eval_tokens": result.tokens,
        "tokens_per_s": round(result.tokens_per_s, 1),
        **({} if broken is None else broken.statistics),
    }
    logger.info(f"perplexity {figures['perplexity']} | {json.dumps(figures)}")
    if args.output_dir is not None:
        make_directory(Path(args.output_dir))
        write_json(Path(args.output_dir) / "eval_results.json", figures)


def go_on(model: Any, tokenizer: Any, args: argparse.Namespace) -> None:
    """What the model makes of --prompt."""
    torch.manual_seed(args.seed)
    prompt = tokenizer(args.prompt, return_tensors="pt").input_ids.to(model.device)
    generated = model.generate(prompt, num_beams=5, num_return_sequences=5, do_sample=True, max_new_tokens=20)
    for number, tokens in enumerate(generated):
        print(f"{number}: {tokenizer.decode(tokens)}")


def run(args: argparse.Namespace) -> None:
    """The steps that are asked for."""
    check(args)
    model, tokenizer = load(args)
    text = Text(args, tokenizer, getattr(model.config, "max_position_embeddings", sys.maxsize))
    if args.do_train:
        train(model, tokenizer, text, args)
    if args.save_knnlm_dstore:
        save_datastore(model, text.windows(args.eval_subset, args.stride), args)
    if args.build_index:
        index_datastore(args)
    if args.cluster_dstore:
        cluster_datastore(args)
    broken = wrapper(args)
    if broken is not None:
        broken.break_into(model)
    # In knn-transformers --do_eval goes with the steps that make something; they are no evaluation here.
    makes = args.save_knnlm_dstore or args.build_index or args.cluster_dstore
    if args.do_eval and (broken is not None or not makes):
        evaluate_and_report(model, text, broken, args)
    if args.prompt is not None:
        go_on(model, tokenizer, args)
    if broken is not None:
        broken.break_out()


def check(args: argparse.Namespace) -> None:
    """
    Raises:
        ConfigurationError: options contradict each other, or there is nothing to do.
    """
    steps = ("do_train", "save_knnlm_dstore", "build_index", "cluster_dstore", "do_eval", "prompt")
    if not any(getattr(args, step) for step in steps):
        raise ConfigurationError(f"there is nothing to do: pass one of {', '.join(f'--{step}' for step in steps)}")
    of_datastore = ("save_knnlm_dstore", "build_index", "cluster_dstore", "knn", "retomaton")
    named = [name for name in of_datastore if getattr(args, name)]
    if named and args.dstore_dir is None:
        raise ConfigurationError(f"--{named[0]} needs a datastore: name its directory with --dstore_dir")
    if args.do_train and args.output_dir is None:
        raise ConfigurationError("--do_train needs a directory for the model: name one with --output_dir")
    if args.fp16 and args.bf16:
        raise ConfigurationError("--fp16 and --bf16 are two precisions: pass one of them")
    if args.members is not None and args.cluster_dstore and args.members.endswith(".pkl"):
        raise ConfigurationError(
            f"--members names {args.members}, but --cluster_dstore makes clusters of that name: leave out its .pkl"
        )
    whole = ("block_size", "stride", "per_device_train_batch_size", "per_device_eval_batch_size")
    for name in (*whole, "num_train_epochs", "gradient_accumulation_steps", "max_train_samples", "max_eval_samples"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ConfigurationError(f"--{name} is {value}, but must be at least 1")


class Parser(argparse.ArgumentParser):
    """Reads options from files, too: @FILE, several in a line, with comments."""

    def convert_arg_line_to_args(self, arg_line: str) -> list[str]:
        return shlex.split(arg_line, comments=True)


def parser() -> argparse.ArgumentParser:
    """All options; those with '-' in the place of '_' are the same."""
    made = Parser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        fromfile_prefix_chars="@",
    )

    def options(title: str) -> Callable[..., None]:
        group = made.add_argument_group(title)

        def add(name: str, **settings: Any) -> None:
            spelled = dict.fromkeys([f"--{name}", f"--{name.replace('_', '-')}"])
            group.add_argument(*spelled, dest=name, **settings)

        return add

    flag: dict[str, Any] = {"action": "store_true"}
    add = options("model and text")
    add("model_name_or_path", required=True, metavar="MODEL", help="a directory, or a name of Hugging Face's hub")
    add("tokenizer_name", metavar="NAME", help="if it is not the model's")
    add("model_revision", default="main", metavar="NAME", help="branch, tag or commit on the hub")
    add("cache_dir", metavar="DIR", help="where what is downloaded is kept")
    add("dataset_name", metavar="NAME", help="a text of Hugging Face's hub; needs the package datasets")
    add("dataset_config_name", metavar="NAME", help="which part of it")
    for split in SPLITS:
        add(f"{split}_file", metavar="FILE", help=f"plain text for {split}")
    add(
        "validation_split_percentage",
        **{"type": int, "default": 5, "metavar": "P"},
        help="of the training lines that are validation text if there is no other (default: 5)",
    )
    add("block_size", type=int, metavar="N", help="tokens of a piece (default: what the model takes, at most 1024)")
    add(
        "stride",
        **{"type": int, "default": 512, "metavar": "N"},
        help="tokens of a piece that are predicted; the others are context (default: 512)",
    )
    add("max_train_samples", type=int, metavar="N", help="only so many pieces of the training text")
    add("max_eval_samples", type=int, metavar="N", help="only so many pieces of the others")

    add = options("steps")
    add("do_train", **flag, help="fine-tune the model")
    add("do_eval", **flag, help="perplexity of --eval_subset")
    add("eval_subset", choices=SPLITS, default="validation", help="(default: validation)")
    add("prompt", metavar="TEXT", help="what the model is to go on with: five samples of beam search")
    add("output_dir", metavar="DIR", help="for the trained model and eval_results.json")
    add("overwrite_output_dir", **flag, help="train anew whatever is there")
    add("seed", type=int, default=42, help="(default: 42)")
    add("fp16", **flag, help="half precision; not for training")
    add("bf16", **flag, help="half precision with the range of float32")

    add = options("training")
    add("per_device_train_batch_size", type=int, default=8, metavar="N", help="pieces (default: 8)")
    add("per_device_eval_batch_size", type=int, default=8, metavar="N", help="pieces (default: 8)")
    add("gradient_accumulation_steps", type=int, default=1, metavar="N", help="batches per update (default: 1)")
    add("learning_rate", type=float, default=5e-5, help="(default: 5e-5)")
    add("weight_decay", type=float, default=0.0, help="(default: 0)")
    add("num_train_epochs", type=int, default=3, metavar="N", help="(default: 3)")
    add("patience", type=int, metavar="N", help="end when so many epochs were no better (default: never)")

    add = options("datastore and index")
    add("dstore_dir", metavar="DIR", help="of the datastore")
    add("dstore_size", type=int, metavar="N", help="checked; it is not needed")
    add("save_knnlm_dstore", **flag, help="build the datastore of --eval_subset (usually train)")
    add("overwrite_dstore", **flag, help="replace a finished one")
    add("knn_keytype", choices=tuple(KEYS), default="last_ffn_input", help="(default: last_ffn_input)")
    add("build_index", **flag, help="build its search index")
    add("ncentroids", type=int, metavar="N", help="lists of an index IVFN,PQM (default: chosen from the entries)")
    add("code_size", type=int, metavar="M", help="bytes of an entry in it")
    add("min_recall", type=float, default=0.95, metavar="R", help="an index that finds less is refused (default: 0.95)")

    add = options("kNN-LM")
    add("knn", **flag, help="with neighbours")
    add("k", type=int, metavar="N", help="neighbours (default: 1024)")
    add("lmbda", type=float, metavar="X", help="their weight (default: 0.25)")
    add("knn_temp", type=float, metavar="T", help="distances are divided by it (default: 1)")
    add("probe", type=int, metavar="N", help="lists that are searched (default: what the index was measured with)")
    add("knn_gpu", action=argparse.BooleanOptionalAction, default=True, help="use a GPU if there is one")
    add("recompute_dists", **flag, help="compute the distances of what was found again, from the keys")
    add("move_dstore_to_mem", **flag, help="read index and keys into memory first")

    add = options("RetoMaton")
    add("retomaton", **flag, help="follow pointers, and search where few are left")
    add("no_pointer", **flag, help="but follow none")
    add("min_knns", type=int, default=1, metavar="N", help="search with fewer pointers than these (default: 1)")
    add("max_knns", type=int, default=1024, metavar="N", help="follow at most so many (default: 1024)")
    add("cluster_dstore", **flag, help="cluster the entries")
    add("num_clusters", type=int, metavar="N", help="(default: a hundredth of the entries)")
    add("sample_size", type=int, metavar="N", help="entries that clusters are learned from (default: 256 per cluster)")
    add("members", metavar="NAME", help="name of the clusters, or a members file *.pkl of other toolkits")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; what the user can mend ends in one sentence and status 1."""
    logging.basicConfig(format="%(asctime)s | %(levelname)s | %(name)s | %(message)s", level=logging.INFO)
    args = parser().parse_args(arguments)
    args.knn_device = "auto" if args.knn_gpu else "cpu"
    try:
        run(args)
    except UserError as error:
        print(f"run_clm: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("run_clm: interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
