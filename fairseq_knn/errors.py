"""What a user can mend: every error of this kind is one sentence, never a traceback.

The message names both sides (what was found, what was expected) and the remedy. Command-line programs
print it and exit with status 1 (:mod:`fairseq_knn.hooks` sees to that under stock fairseq, and
:mod:`fairseq_knn.cli.main` in our own console script); Python callers catch it.
"""


class UserError(Exception):
    """A mistake, or a state of the files, that the user can mend."""


class ConfigurationError(UserError):
    """A setting is out of its range, or two settings contradict each other."""


class UnsupportedVersionError(UserError):
    """fairseq, torch or Python are not the versions this package was tested with."""


class DatastoreError(UserError):
    """A datastore is missing, unfinished, damaged, or was built for something else."""


class CombinerError(UserError):
    """A trained combiner is missing, damaged, or was made for something else."""


class SearchIndexError(UserError):
    """A search index is missing, damaged, stale, or cannot be built as asked."""
