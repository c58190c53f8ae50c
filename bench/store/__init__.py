"""The results folder: the paths of scores, tables and figures, and the writing and reading of scores."""
