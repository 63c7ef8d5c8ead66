"""Normalisation and tokenisation, compared with what Moses's scripts printed for the same text."""

import sys

import pytest

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.speech_data.moses import Moses

TEXTS = {
    "en": (
        "It's a \"test,\" he said — and don't you dare: the state-of-the-art costs $5,000.50 (or 10 %)...",
        "‘Quoted’ the dogs’ bowl… “Hello,” she said. «Bonjour» A & B | C [x] <tag> Mr. Smith is in Washington. 1990's",
        "Zero\u200bwidth soft\u00adhyphen, e.g. this. No. 5 is alive?! A,B,C 1,2,3",
        "He lives in the U.S.",
    ),
    "de": (
        '„Das ist gut“, sagte er – und ging. "Nein," sagte sie. Es kostet 10 % mehr (z.B. hier) .',
        'Er sagte: "Ende." Dr. Müller-Lüdenscheidt wohnt am 3. Mai in der Straße Nr. 5. Wie geht\'s? ‚so‘ ’ne Sache',
    ),
}
# normalize-punctuation.perl -l L | remove-non-printing-char.perl | tokenizer.perl -a -l L
TRAIN = {
    "en": (
        "It &apos;s a &quot; test , &quot; he said - and don &apos;t you dare : the state @-@ of @-@ the @-@ art costs "
        "$ 5,000.50 ( or 10 % ) ...",
        "&apos;Quoted &quot; the dogs &quot; bowl ... &quot; Hello , &quot; she said . &quot; Bonjour &quot; A &amp; B "
        "&#124; C &#91; x &#93; &lt; tag &gt; Mr. Smith is in Washington . 1990 &apos;s",
        "Zero width soft hyphen , e.g. this . No. 5 is alive ? ! A , B , C 1,2,3",
        "He lives in the U.S .",
    ),
    "de": (
        "&quot; Das ist gut &quot; , sagte er - und ging . &quot; Nein &quot; , sagte sie . Es kostet 10 % mehr "
        "( z.B. hier ) .",
        "Er sagte : &quot; Ende &quot; . Dr. Müller @-@ Lüdenscheidt wohnt am 3. Mai in der Straße Nr. 5. Wie geht "
        "&apos; s ? &apos; so &apos; &quot; ne Sache",
    ),
}


@pytest.mark.parametrize("language", TEXTS)
def test_training_text_is_as_the_scripts_leave_it(language: str) -> None:
    moses = Moses(language, normalize=True)
    assert moses.knows_language
    assert tuple(map(moses, TEXTS[language])) == TRAIN[language]


def test_other_text_is_tokenised_alone() -> None:
    moses = Moses("en", normalize=False)
    # tokenizer.perl -a -l en
    assert moses("“Hello,” she said — twice.") == "“ Hello , ” she said — twice ."
    assert moses("10 % of 20%…") == "10 % of 20 % …"


@pytest.mark.parametrize("text", ["", "   ", "\u200b"])
def test_nothing_stays_nothing(text: str) -> None:
    assert Moses("en", normalize=True)(text) == ""


def test_languages_without_abbreviations_are_told() -> None:
    assert not Moses("xx", normalize=False).knows_language


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacremoses", None)
    with pytest.raises(ConfigurationError, match=r"fairseq-knn\[speech\]"):
        Moses("en", normalize=True)
