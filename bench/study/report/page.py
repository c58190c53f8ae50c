"""Renders a Report as one HTML file that contains its libraries and makes no network request.

The libraries come from their installed Python packages. A content security policy allows only the page's own scripts,
by their digests. Text of models and data is escaped; the policy would stop it from running even if it were not.
"""

import base64
import hashlib
import importlib.metadata
import importlib.resources
from collections.abc import Iterable

import jinja2
import pandas as pd
from bokeh.resources import Resources
from markupsafe import Markup

from bench.contrast import model_of
from bench.study.benchmarks import of_table
from bench.study.decomposition_table import decomposition_table
from bench.study.report import sure, views
from bench.study.report.cases import N_ROWS, Case
from bench.study.report.gather import Report
from bench.study.reward_table import reward_table
from bench.study.rewards.known import UNITS
from bench.study.tables import Table, overview_table

_HERE = "bench.study.report"


def html(report: Report) -> str:
    """The page as HTML."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scripts = [_script(text) for text in (_bokeh(), _own("report.js"))]
    board = report.board
    return templates.get_template("report.html").render(
        report=report,
        policy=_policy(scripts),
        scripts=scripts,
        datatables=_script(_itables("dt_bundle.js")),
        styles=[Markup(_itables("dt_bundle.css")), Markup(_own("report.css"))],
        version=importlib.metadata.version("drsow"),
        reward=board["reward"].iloc[0],
        unit=UNITS[board["reward"].iloc[0]],
        n_models=pd.concat([board["strong"], board["weak"]]).map(model_of).nunique(),
        families=sorted(set(board["family"]) - {""}),
        board=views.board_rows(report),
        section_titles=views.section_titles(report),
        benchmark=of_table(report.accuracy),
        overview=None if report.overview is None else overview_table(report.overview),
        apart=_apart(report),
        rewards=None if report.rewards is None else reward_table(report.rewards),
        length=None if report.checks is None else sure.balance_table(report.checks, board),
        sure=None if report.checks is None else sure.sure_table(report.checks),
        curves=[] if report.checks is None else sure.curves(report.checks),
        tabs=views.tabs(report),
        details=views.details(report),
        cases=_by_pair(report.cases),
        n_wrong=report.n_wrong,
        shaded=any(answer.shaded for case in report.cases for answer in case.answers),
        n_rows=N_ROWS,
        sets=report.manifest.get("score_sets", []),
        precision=report.manifest.get("precision", {}),
    )


def _apart(report: Report) -> Table | None:
    """The table of the decomposition; None if the subject has no such numbers."""
    rows = report.decomposition
    return None if rows is None or rows.empty else decomposition_table(rows, provenance="")


def _by_pair(cases: Iterable[Case]) -> dict[str, list[Case]]:
    """Cases by pair_id."""
    grouped: dict[str, list[Case]] = {}
    for case in cases:
        grouped.setdefault(case.pair_id, []).append(case)
    return grouped


def _policy(scripts: Iterable[str]) -> str:
    """The content security policy: it allows the given scripts and the code that they create, and nothing from
    outside."""
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed} blob:; style-src 'unsafe-inline'; img-src data: blob:; "
        "font-src data:; base-uri 'none'; form-action 'none'"
    )


def _script(text: str) -> Markup:
    """A script in a form that can be placed between script tags."""
    # A browser reads CR LF as LF, and computes the digest of what it read.
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    # Only strings of the libraries contain this; the escape keeps the string and starts no HTML comment.
    text = text.replace("<!--", "\\x3c!--")
    if "</script" in text.lower():
        raise ValueError("a library's script contains the text </script, which would end the script tag early")
    return Markup(text)


def _bokeh() -> str:
    """The BokehJS script."""
    return "\n".join(Resources(mode="inline", components=["bokeh"]).js_raw)


def _itables(name: str) -> str:
    """A file of the package itables."""
    return importlib.resources.files("itables").joinpath("html", name).read_text(encoding="utf-8")


def _own(name: str) -> str:
    """The text of a file in the folder `templates`."""
    return importlib.resources.files(_HERE).joinpath("templates", name).read_text(encoding="utf-8")
