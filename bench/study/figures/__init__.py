"""Frames -> figures: the only place with matplotlib and seaborn.

A figure is a function from a frame to a Figure. It computes no statistic, saves nothing and takes no colours;
`encode` turns the Figure into the bytes of a file.
"""

from bench.study.figures.pair import pair_accuracy
from bench.study.figures.study import gap_accuracy
from bench.study.figures.style import FORMATS, encode

__all__ = ["FORMATS", "encode", "gap_accuracy", "pair_accuracy"]
