"""A results folder -> one page that a browser opens without a network.

gather   a results folder, and the stored scores where there are any -> Report
cases    the rows that the best pairs get wrong by the largest margin
plots    frames -> figures with hover
page     Report -> HTML
"""

from bench.study.report.gather import STORED_STRETCHES, Report, gather, store_stretches, stretched_rows
from bench.study.report.page import html

__all__ = ["STORED_STRETCHES", "Report", "gather", "html", "store_stretches", "stretched_rows"]
