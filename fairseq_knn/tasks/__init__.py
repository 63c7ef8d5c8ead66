"""The tasks this package registers with fairseq; stock fairseq imports every module of this folder."""

# Loading fairseq registers this package, which imports the modules of this folder. That must not happen
# while one of them is half imported, as it would if its own first import were the one to load fairseq.
import fairseq  # noqa: F401
