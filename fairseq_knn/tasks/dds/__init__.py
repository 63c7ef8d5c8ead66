"""Language sampling: what ``translation_multi_dds`` adds to a stock task."""
