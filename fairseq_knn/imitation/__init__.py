"""Imitation learning with a translation model as expert (ImitKD), and distillation of its words. No fairseq.

The student translates, from references or from what it decoded itself; at every position the expert says what it
would write next. Lin et al. 2020 ("Autoregressive Knowledge Distillation through Imitation Learning") for text;
Hubert et al. 2023 for a student that reads speech and an expert that reads its transcript.
"""
