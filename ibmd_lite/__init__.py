"""Bridge matching and its one-step distillation.

The method is six short files, read in this order: ``bridges``, ``model``, ``matching``, ``sampling``,
``student``, ``distillation``; ``gaussian`` is the exact truth beside them.  Importing the package imports none of them.
"""

__version__ = "0.1.0"
