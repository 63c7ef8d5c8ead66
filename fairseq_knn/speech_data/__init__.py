"""Data of speech translation: manifests of stock ``speech_to_text`` and what is done to their texts."""
