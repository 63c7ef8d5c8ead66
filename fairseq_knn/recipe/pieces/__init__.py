"""From text to pieces: tokenizers, the vocabulary that follows them, and data in its numbers."""
