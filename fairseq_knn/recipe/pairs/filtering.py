"""Which pairs cannot be translations of each other."""

from fairseq_knn.corpora.cleaning import RATIO_FROM, comparison_key

# Names and greetings are the same in two languages ("Tom", "OK", "Hello, Tom!"); a longer text was not translated.
SAME_UP_TO_WORDS = 3

# In the order in which they are looked for.
REASONS = ("lacking", "blank", "long", "ratio", "same", "duplicate")


def fault(source: str, target: str, max_words: int, max_ratio: float) -> str | None:
    """Why a pair is left out, or None.

    Args:
        source, target: the sides, tidy.
        max_words: of either side, at white space.
        max_ratio: of their lengths in characters. Of sides up to 30 characters it says nothing.

    Returns:
        One of :data:`REASONS`; "lacking" and "duplicate" are not about the two sides, and others find them.
    """
    if not source or not target:
        return "blank"
    words = max(len(source.split()), len(target.split()))
    if words > max_words:
        return "long"
    shorter, longer = sorted((len(source), len(target)))
    if longer > RATIO_FROM and longer > max_ratio * shorter:
        return "ratio"
    if words > SAME_UP_TO_WORDS and comparison_key(source) == comparison_key(target):
        return "same"
    return None


def described(reason: str, max_words: int, max_ratio: float) -> str:
    """What is said of pairs that are left out."""
    return {
        "lacking": "have too few columns",
        "blank": "have a blank side",
        "long": f"have more than {max_words} words on a side (pairs.max_words)",
        "ratio": f"have a side more than {max_ratio:g} times as long as the other (pairs.max_ratio)",
        "same": f"say the same on both sides, in more than {SAME_UP_TO_WORDS} words",
        "duplicate": "were there before",
    }[reason]
