"""One aligned sentence pair."""

from dataclasses import dataclass

SOURCE, TARGET = "de", "en"
LANGUAGES = (SOURCE, TARGET)


@dataclass(frozen=True, slots=True)
class Pair:
    """A sentence and its translation.

    Attributes:
        key: where the pair comes from inside its package (an ICD code, a Bible verse, a path of
            translation keys); split rules are made of it.
        source: in whatever language.
        target: English.
        language: of the source.
    """

    key: str
    source: str
    target: str
    language: str = SOURCE

    def sides(self) -> tuple[str, str]:
        """Both texts, in the order of :data:`LANGUAGES`."""
        return self.source, self.target
