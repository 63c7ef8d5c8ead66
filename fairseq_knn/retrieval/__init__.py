"""From queries to neighbours: one or several datastores searched as one, and pointers that are followed instead."""

from fairseq_knn.retrieval.automaton import Automaton, continuations, open_automaton
from fairseq_knn.retrieval.members import Members
from fairseq_knn.retrieval.neighbours import Neighbours
from fairseq_knn.retrieval.retriever import Retriever

__all__ = ["Automaton", "Members", "Neighbours", "Retriever", "continuations", "open_automaton"]
