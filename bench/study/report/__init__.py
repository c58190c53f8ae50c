"""Makes one HTML page from a results folder, which a browser opens without a network.

gather   reads a results folder, and the stored scores if they exist -> Report
cases    finds the rows that the best pairs get wrong by the largest margin
plots    draws interactive figures from frames
sure     prepares the tables and figures on length and confidence
views    prepares the rows that the template prints
page     renders a Report as HTML
"""

from bench.study.report.gather import STORED_STRETCHES, Report, gather, store_stretches, stretched_rows
from bench.study.report.page import html

__all__ = ["STORED_STRETCHES", "Report", "gather", "html", "store_stretches", "stretched_rows"]
