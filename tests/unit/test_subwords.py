"""Codes and models that text is cut with; what fastBPE makes of its codes is what its own program printed."""

import io
import sys
from pathlib import Path

import pytest
import sentencepiece

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.subwords import is_sentencepiece, load_subwords, read_codes, read_symbols

FASTBPE_CODES = """\
l o 9
e r</w> 8
lo w</w> 7
n e 6
ne w 5
lo w 4
low er</w> 4
i d 3
id est</w> 3
e s 3
es t</w> 3
d est</w> 2
ü b 2
üb er</w> 2
a a 1
aa aa</w> 1
"""
DICTIONARY = "low 3\nlo@@ 3\nw@@ 3\nw 2\ner 2\nn@@ 1\ne@@ 1\nüb@@ 1\naa@@ 1\na@@ 1\na 1\n"
TEXTS = ["low lower lowest newer wider idest", "über übers aaaaa aaaa a </w> &apos;s @-@", "中文 low@@ er"]
FASTBPE = [
    "low lower low@@ est new@@ er w@@ id@@ er idest",
    "über üb@@ e@@ r@@ s aa@@ aa@@ a aa@@ a@@ a a <@@ /@@ w@@ > &@@ a@@ p@@ o@@ s@@ ;@@ s @@@ -@@ @",
    "中@@ 文 low@@ @@@ @ er",
]
FASTBPE_WITH_DICTIONARY = [
    "low lo@@ w@@ er lo@@ w@@ e@@ s@@ t n@@ e@@ w@@ er w@@ i@@ d@@ er i@@ d@@ e@@ s@@ t",
    "üb@@ er üb@@ e@@ r@@ s aa@@ aa@@ a aa@@ a@@ a a <@@ /@@ w@@ > &@@ a@@ p@@ o@@ s@@ ;@@ s @@@ -@@ @",
    "中@@ 文 lo@@ w@@ @@@ @ er",
]


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def codes(tmp_path: Path) -> Path:
    return written(tmp_path / "bpecodes", FASTBPE_CODES)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    content = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["low lower lowest newer wider"] * 5),
        model_writer=content,
        vocab_size=22,
        model_type="bpe",
        minloglevel=2,
    )
    path = tmp_path_factory.mktemp("sentencepiece") / "spm.model"
    path.write_bytes(content.getvalue())
    return path


def test_codes_of_fastbpe_cut_as_fastbpe_does(codes: Path) -> None:
    subwords = load_subwords(codes)
    assert (subwords.kind, subwords.mark) == ("fastbpe", "@@")
    assert [subwords.encode(text) for text in TEXTS] == FASTBPE


def test_a_vocabulary_undoes_merges_as_fastbpe_does(codes: Path, tmp_path: Path) -> None:
    subwords = load_subwords(codes, written(tmp_path / "dict.txt", DICTIONARY))
    assert [subwords.encode(text) for text in TEXTS] == FASTBPE_WITH_DICTIONARY


def test_codes_of_fastbpe_are_written_for_subword_nmt(codes: Path, tmp_path: Path) -> None:
    rewritten = written(tmp_path / "codes.subword-nmt", read_codes(codes).text())
    subwords = load_subwords(rewritten)
    assert subwords.kind == "subword-nmt"
    assert [subwords.encode(text) for text in TEXTS] == FASTBPE
    assert read_codes(rewritten).text() == rewritten.read_text(encoding="utf-8")


def test_versions_of_subword_nmt_end_words_differently(tmp_path: Path) -> None:
    # 0.1, which says no version: the end of a word is a symbol of its own
    old = load_subwords(written(tmp_path / "old", "l o\nlo w\nlow </w>\n"))
    assert old.encode("low lower") == "low low@@ e@@ r"
    new = load_subwords(written(tmp_path / "new", "#version: 0.2\nl o\nlo w\n"))
    assert new.encode("low lower") == "lo@@ w low@@ e@@ r"


def test_sentencepiece(model: Path) -> None:
    assert is_sentencepiece(model)
    subwords = load_subwords(model)
    assert (subwords.kind, subwords.mark) == ("sentencepiece", "▁")
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    assert subwords.encode("low newest") == " ".join(processor.encode("low newest", out_type=str))
    assert subwords.encode("low newest").replace(" ", "").replace("▁", " ").strip() == "low newest"


def test_any_white_space_divides_words_and_none_is_left(codes: Path) -> None:
    subwords = load_subwords(codes)
    # as in fairseq's dictionaries, which would divide "low\u00a0er" into two symbols afterwards
    assert subwords.encode("  low\u00a0er\tlow ") == "low er low"
    assert subwords.encode("   ") == ""


def test_the_kind_does_not_depend_on_the_name(model: Path, tmp_path: Path) -> None:
    renamed = tmp_path / "bpecodes"
    renamed.write_bytes(model.read_bytes())
    assert load_subwords(renamed).kind == "sentencepiece"
    assert load_subwords(written(tmp_path / "spm.model", FASTBPE_CODES)).kind == "fastbpe"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a b c d\n", "line 1 is 'a b c d'"),
        (b"a b 1\nc d\n", "line 2 is 'c d'"),
        (b"a b\nc d 1\n", "line 2 is 'c d 1'"),
        (b"a b x\n", "line 1 is 'a b x'"),
        (b"#version: 0.2\na b 1\n", "line 2 is 'a b 1'"),
        (b"#version: 3.0\na b\n", "version 3.0"),
        (b"\nno model", "cannot be read as one"),
        (b"\xff\xfe", "no UTF-8 text"),
        (b"", "is empty"),
    ],
)
def test_what_is_neither_is_said_in_a_sentence(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "codes"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=said):
        load_subwords(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_subwords(tmp_path / "none")


def test_without_the_extra(codes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "subword_nmt.apply_bpe", None)
    with pytest.raises(ConfigurationError, match=r"fairseq-knn\[speech\]"):
        load_subwords(codes)


def test_symbols_of_a_dictionary(tmp_path: Path) -> None:
    path = written(tmp_path / "dict.txt", "low 3\nlo@@ 2\n<s> 1 #fairseq:overwrite\n")
    assert read_symbols(path) == {"low", "lo@@", "<s>"}
    with pytest.raises(ConfigurationError, match="line 2 is 'lo@@'"):
        read_symbols(written(path, "low 3\nlo@@\n"))
