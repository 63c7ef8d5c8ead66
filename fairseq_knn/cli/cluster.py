"""``fairseq-knn cluster``."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fairseq_knn.clustering import Settings

NAME = "cluster"
HELP = "put the entries of a datastore into clusters, the states of RetoMaton"

_OF_METHOD = {
    "kmeans": ("num_clusters", "sample", "iterations", "seed"),
    "greedy": ("neighbours", "knn_backend", "seed"),
    "members": (),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Writes DIR/clusters-NAME.npz; a datastore may have several, under different names. kmeans: clusters around "
        "centroids, learned from a sample; all entries are then assigned. It takes 16 bytes of memory per cluster and "
        "dimension (1,000,000 clusters of dimension 1,024: 16 GB) and up to 20 per entry, whatever the sample is. Its "
        "time is the product of sample, clusters, dimension and iterations; but more than 40,000 centroids on a CPU "
        "are searched by an index, and how often that finds the nearest is printed. greedy: near entries with one "
        "value are merged, with one search in the datastore's index for every cluster; much faster, up to 20 bytes per "
        "entry. --members takes over what RetoMaton or knn-transformers made. An interrupted run goes on when the same "
        "command is run again; finished clusters with the same settings are left alone."
    )
    parser.add_argument("datastore", type=Path, metavar="DIR", help="a finished datastore")
    parser.add_argument("--method", choices=("kmeans", "greedy"), help="how (default: kmeans)")
    parser.add_argument("--name", help="of the clusters (default: kmeans, greedy or members)")
    parser.add_argument(
        "--num-clusters", type=int, metavar="N", help="kmeans: number of clusters (default: a hundredth of the entries)"
    )
    parser.add_argument(
        "--sample",
        type=int,
        metavar="N",
        help="kmeans: entries to learn from (default: all, but at most 256 per cluster, beyond which centroids hardly "
        "change)",
    )
    parser.add_argument("--iterations", type=int, metavar="N", help="kmeans: of Lloyd's algorithm (default: 20)")
    parser.add_argument(
        "--neighbours", type=int, metavar="N", help="greedy: nearest entries that may join a cluster (default: 15)"
    )
    parser.add_argument(
        "--knn-backend",
        choices=("auto", "faiss", "torch"),
        help="greedy: who finds them: faiss (the datastore's index), torch (exact), or auto (default: auto)",
    )
    parser.add_argument("--seed", type=int, metavar="S", help="of everything that is drawn (default: 1)")
    parser.add_argument(
        "--knn-device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where centroids or entries are searched; auto: the GPU if there is one (default: auto)",
    )
    parser.add_argument(
        "--members",
        type=Path,
        metavar="FILE",
        help="read this pickle (*members*.pkl: a scipy CSR matrix, a row for each cluster) instead; nothing else in a "
        "pickle is admitted or run",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace clusters of that name, finished or not")


def run(args: argparse.Namespace) -> int:
    from fairseq_knn.clustering import build_clusters, import_members
    from fairseq_knn.datastore import Datastore

    method = _method(args)
    datastore = Datastore.load(args.datastore)
    name = args.name or method
    if method == "members":
        import_members(datastore, name, args.members, overwrite=args.overwrite, report=print)
    else:
        build_clusters(
            datastore,
            name,
            _settings(method, args, datastore.entries),
            device=args.knn_device,
            overwrite=args.overwrite,
            report=print,
        )
    return 0


def _method(args: argparse.Namespace) -> str:
    """How to cluster.

    Raises:
        ConfigurationError: a flag is another method's.
    """
    from fairseq_knn.errors import ConfigurationError

    if args.members is not None and args.method is not None:
        raise ConfigurationError(
            f"--members takes over finished clusters, --method {args.method} makes new ones: pass one of them"
        )
    method = "members" if args.members is not None else args.method or "kmeans"
    for flag in sorted({flag for flags in _OF_METHOD.values() for flag in flags}):
        if getattr(args, flag) is not None and flag not in _OF_METHOD[method]:
            owners = " and ".join(f"--method {owner}" for owner, flags in _OF_METHOD.items() if flag in flags)
            using = "--members" if method == "members" else f"--method {method}"
            raise ConfigurationError(f"--{flag.replace('_', '-')} is of {owners}, but not of {using}: leave it out")
    return method


def _settings(method: str, args: argparse.Namespace, entries: int) -> "Settings":
    from fairseq_knn.clustering import Greedy, KMeans

    given = {flag: getattr(args, flag) for flag in _OF_METHOD[method] if getattr(args, flag) is not None}
    if method == "kmeans":
        return KMeans.of_store(entries, given.pop("num_clusters", None), **given)
    return Greedy(**{"backend" if flag == "knn_backend" else flag: value for flag, value in given.items()})
