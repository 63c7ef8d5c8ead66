"""A build that is killed at any moment and run again equals one that never was."""

from pathlib import Path

import pytest

from tests import toy
from tests.integration.kill_campaign import examine
from tests.integration.moments import Moments

SHARDS = ("--knn-shard-sentences", 20)  # the validation data: eleven shards


@pytest.mark.parametrize(
    ("moment", "committed"),
    [("replaced keys-00003.npy", 3), ("write .commit-00005.json", 5), ("write .manifest.json", 11)],
    ids=["between two files of a shard", "while committing", "while writing the manifest"],
)
def test_killed_and_resumed(moment: str, committed: int, small_datastore: Path, tmp_path: Path) -> None:
    outcome = examine(tmp_path / "d", moment, small_datastore, *SHARDS, split="valid", resume=toy.build)
    assert outcome.committed == outcome.kept == committed
    assert outcome.leftovers > 0
    assert outcome.differences == ()


def test_the_moments_of_the_campaign_exist(tmp_path: Path) -> None:
    from tests.integration.kill_campaign import COMMAND, MOMENTS, OVERWRITING

    with Moments(tmp_path / "d") as moments:
        toy.build(tmp_path / "d", *COMMAND, split="train")
    assert {moment for _, moment in MOMENTS} <= set(moments.names)
    with Moments(tmp_path / "d") as moments:
        toy.build(tmp_path / "d", *COMMAND, "--knn-overwrite", split="train")
    assert {moment for _, moment in OVERWRITING} <= set(moments.names)
