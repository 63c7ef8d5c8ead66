"""What counts as a usable pair, and as the same sentence."""

import pytest

from fairseq_knn.corpora.cleaning import clean, comparison_key, is_usable, tidy
from fairseq_knn.corpora.pair import Pair


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  two\n\tlines\r\n here ", "two lines here"),
        ("10\u00a0% von\u202fhundert", "10 % von hundert"),
        ("soft\u00adhyphen\u200b", "softhyphen"),
        ("u\u0308ber", "\u00fcber"),
        ("line\u2028separator\x85here", "line separator here"),
    ],
)
def test_tidy(text: str, expected: str) -> None:
    assert tidy(text) == expected
    assert len(f"{tidy(text)}\n".splitlines()) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Connect to {host}.", "connect to {name}"),
        ("Straße", "STRASSE"),
        ("Re-load!", "reload"),
        ("a  b", "A B"),
    ],
)
def test_same_sentence(one: str, other: str) -> None:
    assert comparison_key(one) == comparison_key(other) != ""


def test_other_sentence() -> None:
    assert comparison_key("Burn of 1st degree") != comparison_key("Burn of 2nd degree")


@pytest.mark.parametrize(
    ("german", "english"),
    [
        ("Gerät nicht gefunden", "Device not found"),
        ("OK, das ist in Ordnung so", "OK"),
        ("{host} ist nicht da", "{host} is not there"),
        ("bei 20 °C kühlen", "cool at 20 °C"),
        ("{typ} <{name}> hat kein Flutlicht", "{type} <{name}> has no floodlight"),
    ],
)
def test_usable(german: str, english: str) -> None:
    assert is_usable(Pair("", german, english))


@pytest.mark.parametrize(
    ("german", "english", "why"),
    [
        ("", "Device", "empty"),
        ("Gerät", "", "empty"),
        ("{geraet}", "Device {name}", "a placeholder alone"),
        ("12 V", "twelve volts", "no word"),
        ("Home Assistant.", "home assistant", "not translated"),
        ("Wort " * 61, "word " * 60, "too long"),
        ("Sturz vom Baum auf dem Spielplatz", "Home fall", "ratio"),
        ("<b>Fett</b>", "bold", "tag"),
        ("Fisch &amp; Brot", "fish and bread", "entity"),
        ("| Profil | Wert |", "| profile | value |", "table"),
        ("Siehe [hier]({url}, dann weiter", "see here, then on", "half a link"),
        ("Konzentrische Sklerose [Bal├│]", "Concentric sclerosis", "mojibake"),
        ("K\ufffdrper", "body", "replacement character"),
    ],
)
def test_unusable(german: str, english: str, why: str) -> None:
    assert not is_usable(Pair("", tidy(german), tidy(english))), why


def test_clean_keeps_the_first_of_equal_pairs_in_order() -> None:
    pairs = [
        Pair("1", "Zwei  Worte", "two words"),
        Pair("2", "Ein Wort", "one word"),
        Pair("3", "Zwei Worte", "two\nwords"),
        Pair("4", "Zwei Wörter", "two words"),
        Pair("5", "5", "5"),
    ]
    assert list(clean(pairs)) == [
        Pair("1", "Zwei Worte", "two words"),
        Pair("2", "Ein Wort", "one word"),
        Pair("4", "Zwei Wörter", "two words"),
    ]
