"""Recordings: a voice that reads sentences, acted dialogue, and what speech models learn from.

Imported when a corpus with recordings is built, no earlier: numpy and torchaudio take seconds to load.
"""
