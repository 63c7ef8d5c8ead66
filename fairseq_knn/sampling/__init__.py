"""Which training data is drawn next: distributions over languages that learn from gradients (DDS, MultiDDS)."""
