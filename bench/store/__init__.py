"""The results folder: where scores, tables and figures are, and how scores are written and read back."""
