"""Draws figures from frames. Only this package uses matplotlib and seaborn.

A figure is a function from a frame to a Figure. It computes no statistic, saves no file and takes no colours. `encode`
turns the Figure into the bytes of a file.
"""

from bench.study.figures.benchmarks import style_matrix, ties_margins
from bench.study.figures.confidence import coverage, reliability
from bench.study.figures.decomposition import decomposition
from bench.study.figures.heatmaps import strong_weak_heatmap, strong_weak_overview, subset_pair_heatmap
from bench.study.figures.margins import length_accuracy, margin_distributions
from bench.study.figures.pair import pair_accuracy
from bench.study.figures.rewards import reward_families
from bench.study.figures.study import accuracy_cost, gap_accuracy
from bench.study.figures.style import FORMATS, encode
from bench.study.figures.variants import ablation, tuning

__all__ = [
    "FORMATS",
    "ablation",
    "accuracy_cost",
    "coverage",
    "decomposition",
    "encode",
    "gap_accuracy",
    "length_accuracy",
    "margin_distributions",
    "pair_accuracy",
    "reliability",
    "reward_families",
    "strong_weak_heatmap",
    "strong_weak_overview",
    "style_matrix",
    "subset_pair_heatmap",
    "ties_margins",
    "tuning",
]
