"""One datastore with several indexes."""

from pathlib import Path

from workflow import Workflow, quote


def linked_copy(store: Path, name: str, flow: Workflow) -> Path:
    """A datastore called *name* beside *store*, of the same shards, without an index."""
    copy = store.with_name(name)
    flow.run(
        f"copy-{name}",
        f"mkdir -p {quote(copy)} && ln -sfn {quote(store.resolve() / 'shards')} {quote(copy / 'shards')} "
        f"&& cp {quote(store / 'manifest.json')} {quote(copy)}",
    )
    return copy
