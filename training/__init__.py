"""Data sets, training, evaluation and export."""
