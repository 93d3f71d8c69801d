"""ConceptBench: how well was a concept erased from a text-to-image model, what else was damaged, and what did it cost?"""

__version__ = "0.1.0"
