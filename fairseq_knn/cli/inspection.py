"""``fairseq-knn inspect``."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAME = "inspect"
HELP = "tell what a datastore is: model, size, index, memory it takes"

_CLUSTERS_BYTES = 8  # of an entry, in memory: the number of its cluster, and itself as a member


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Prints what is in the datastore DIR, which model and dictionary it was built with, how large its files are, "
        "which index it has and what that finds, which clusters, and how much memory translating with it takes. Of an "
        "unfinished datastore it says which shards are missing and how to go on. Datastores of knn-box are described "
        "as far as they describe themselves. Only small files are read, so it takes no time; `fairseq-knn verify` "
        "reads all."
    )
    parser.add_argument("datastore", type=Path, metavar="DIR", help="a datastore, finished or not")
    parser.add_argument("--json", action="store_true", help="print the same as JSON, sizes in bytes, for scripts")


def run(args: argparse.Namespace) -> int:
    known = _known(args.datastore)
    if args.json:
        print(json.dumps(known, indent=1))
    else:
        for name, text in _lines(known):
            print(f"{name:<12}{text}")
    return 0


def _known(path: Path) -> dict[str, Any]:
    # torch, which much of the package needs, takes a second to import, and --help should not.
    from fairseq_knn.clustering.description import describe_clusters
    from fairseq_knn.datastore import Datastore
    from fairseq_knn.datastore.description import describe, describe_begun
    from fairseq_knn.datastore.merging import begun
    from fairseq_knn.index.description import describe_index

    if (plan := begun(path)) is not None:
        return {"path": str(path), **describe_begun(path, plan)}
    datastore = Datastore.load(path)
    return {
        "path": str(path),
        **describe(datastore),
        "index": describe_index(datastore),
        "clusters": describe_clusters(datastore),
    }


def _lines(known: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "datastore", known["path"]
    yield "format", f"{known['format']}, {known['state']}"
    if "message" in known:
        yield "", known["message"]
    entries = f"{known['entries']:,}"
    yield "entries", entries + (f" of dimension {known['dimension']}" if known["dimension"] else "")
    yield "keys", f"{known['key']}, {known['key_dtype']}" + (", dropped" if "keys" in known["dropped"] else "")
    yield from _plan_lines(known)
    yield from _table("disk", _on_disk(known))
    if "index" in known:
        yield from _index_lines(known["index"])
        yield from _clusters_lines(known["clusters"])
        yield from _table("memory", _in_memory(known))


def _plan_lines(known: dict[str, Any]) -> Iterator[tuple[str, str]]:
    from fairseq_knn.storage.digest import short

    if "plan" not in known:
        yield "model", "not recorded by this format, nor are vocabulary and sentences"
        return
    plan = known["plan"]
    unfinished = known["state"] == "unfinished"
    of = f" of {plan['sentences']:,}" if unfinished else ""
    yield "sentences", f"{known['sentences']:,}{of} from the split {plan['split']!r}, {known['left_out']:,} left out"
    yield "model", f"{plan['model_name']} {short(plan['model'])}"
    yield "vocabulary", f"{plan['vocabulary_size']:,} symbols, {short(plan['vocabulary'])}"
    of = f" of {plan['shards']:,}" if unfinished else ""
    yield "shards", f"{known['shards']:,}{of}, of up to {plan['shard_sentences']:,} sentences each"


def _index_lines(index: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if index["state"] != "ready":
        yield "index", f"{index['state']}: {index['message']}"
        return
    yield "index", index["kind"] + (", lists on disk" if index.get("on_disk") else "")
    if "recall" not in index:
        yield "", "made by another toolkit: recall and settings are not recorded"
        return
    nprobe = "" if index["nprobe"] is None else f" with --knn-nprobe {index['nprobe']}"
    yield "", f"recall@{index['k']} {index['recall']:.3f}{nprobe}"
    trained = f"trained with {index['trained_with']:,} keys" if index["trained_with"] else "not trained"
    yield "", f"{trained}, built by faiss {index['faiss']}"


def _clusters_lines(clusters: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for number, one in enumerate(clusters):
        text = (
            f"{one['state']}: {one['message']}" if "message" in one else f"{one['clusters']:,} ({_made(one['made'])})"
        )
        yield "" if number else "clusters", f"{one['name']}: {text}"


def _made(made: dict[str, Any]) -> str:
    """How clusters were made; their number is told already, and digests tell a person nothing."""
    told = [f"{name} {value}" for name, value in made.items() if name not in ("method", "clusters", "sha256")]
    return ", ".join([str(made.get("method")), *told])


def _on_disk(known: dict[str, Any]) -> list[tuple[str, int]]:
    sizes = {name: size for name, size in known["bytes"].items() if name not in known["dropped"]}
    if "index" in known:
        sizes["index"] = known["index"]["bytes"] or 0
        if known["clusters"]:
            sizes["clusters"] = sum(one["bytes"] for one in known["clusters"])
    return [*sizes.items(), ("together", sum(sizes.values()))]


def _in_memory(known: dict[str, Any]) -> list[tuple[str, int]]:
    """What translating takes above the model."""
    memory, index = known["memory"], known["index"]
    rows = [("values", memory["values"])]
    if index["state"] == "ready":
        rows.append(("index (--knn-load ram; else mapped)", index["bytes"]))
    if memory["exact_search"] is not None:
        rows.append(("keys, for exact search on a GPU", memory["exact_search"]))
    if any(one["state"] == "ready" for one in known["clusters"]):
        rows.append(("clusters and their members, for RetoMaton", _CLUSTERS_BYTES * known["entries"]))
    return rows


def _table(name: str, rows: list[tuple[str, int]]) -> Iterator[tuple[str, str]]:
    width = max(len(label) for label, _ in rows)
    for number, (label, size) in enumerate(rows):
        yield name if number == 0 else "", f"{label:<{width}}  {_size(size):>9}"


def _size(size: int) -> str:
    """Bytes as a person reads them, in powers of 1,000 as the documentation has them."""
    value = float(size)
    for unit in ("B", "kB", "MB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} GB"
