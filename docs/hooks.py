"""What mkdocs does besides turning pages into HTML: pages from outside docs/, the commands, the Python interface.

README files of results/, CONTRIBUTING.md and CHANGELOG.md are pages of the site too. Every link is written as GitHub
reads it, from file to file; here it becomes a link from page to page.
"""

import inspect
import logging
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

import griffe
import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import bench
from bench.cli import app
from bench.cli.app import CHOOSE, CUSTOMISE, EXCHANGE, LABEL, LOOK_UP, SCORE, TUNE

ROOT = Path(__file__).parents[1]

PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changes.md"}
"""Pages at the root of the repository -> pages of the site."""

SHOWN = ("README.md", "preferences.md", "report.html", "*.csv", "*.png")
"""Files of results/ that pages show or link to."""

COMMANDS_HERE, MEMBERS_HERE = "<!-- every command -->", "<!-- every public name -->"
"""Where a page wants what is generated."""

KINDS = {"str": "TEXT", "path": "PATH", "file": "FILE", "int": "N", "float": "X"}
"""A kind of value as Python calls it -> as the page does. A choice stays as it is: "sum|mean"."""

_KIND = re.compile(r"<(?:list\[)?([^<>\]]+?)(?: range)?\]?>")
_LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)#\s]+)")

log = logging.getLogger("mkdocs.hooks.drsow")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, tables and figures that lie outside docs/."""
    outside = {ROOT / name: page for name, page in PAGES.items()}
    for path in sorted(path for name in SHOWN for path in (ROOT / "results").rglob(name)):
        name = path.relative_to(ROOT).as_posix()
        # The scores themselves, and runs of the pipeline and of ladders, are not in git.
        if not name.startswith(("results/scores/", "results/pipeline/run/", "results/ladders/run/")):
            outside[path] = name
    for path, name in outside.items():
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files into links between pages, and write what is generated."""
    home = posixpath.dirname(_in_repository(page.file.src_uri))

    def link(found: re.Match) -> str:
        target = _in_site(posixpath.normpath(posixpath.join(home, found[2])))
        return found[1] + posixpath.relpath(target, posixpath.dirname(page.file.src_uri) or ".")

    markdown = _LINK.sub(link, markdown)
    if COMMANDS_HERE in markdown:
        markdown = markdown.replace(COMMANDS_HERE, "\n".join(_commands()))
    if MEMBERS_HERE in markdown:
        markdown = markdown.replace(MEMBERS_HERE, "\n\n".join(f"::: bench.{name}" for name in _public()))
    return markdown


def on_pre_build(config: MkDocsConfig) -> None:
    """Warn of every public name without a docstring: a strict build then fails."""
    for path in undocumented(griffe.load("bench", search_paths=[str(ROOT)])):
        log.warning("%s has no docstring", path)


def undocumented(package: griffe.Object | griffe.Alias) -> Iterator[str]:
    """Paths of the public names of a package, and of their public methods, that have no docstring."""
    for name in bench.__all__:
        public = package[name]
        inner = public.members.values() if public.is_class else ()
        # An attribute without a docstring is not shown.
        shown = (each for each in inner if each.is_public and each.is_function)
        yield from (each.path for each in (public, *shown) if each.docstring is None)


def _in_repository(page: str) -> str:
    """The path of a page's file, from the root of the repository."""
    outside = {site: name for name, site in PAGES.items()}
    return outside.get(page) or (page if page.startswith("results/") else f"docs/{page}")


def _in_site(path: str) -> str:
    """The page of a file, from the site's root; a file that is no page keeps its path, and the build fails."""
    return PAGES.get(path) or path.removeprefix("docs/")


def _public() -> list[str]:
    """The public names: what computes, then types and errors."""
    computing = [n for n in bench.__all__ if inspect.isroutine(vars(bench)[n]) or vars(bench)[n].__module__ == "bench"]
    return sorted(bench.__all__, key=lambda name: name not in computing)


def _commands() -> Iterator[str]:
    """Every verb with every option, as `--help` explains them, in Markdown."""
    verbs = typer.main.get_command(app).commands
    for group in (SCORE, CHOOSE, CUSTOMISE, LABEL, TUNE, EXCHANGE, LOOK_UP):
        yield f"## {group}\n"
        for name, verb in verbs.items():
            if verb.rich_help_panel == group:
                yield from _command(name, verb)
                for inner, own in (verb.commands if isinstance(verb, typer.core.TyperGroup) else {}).items():
                    yield from _command(f"{name} {inner}", own)


def _command(name: str, verb: typer.core.TyperCommand) -> Iterator[str]:
    yield f"### drsow {name} {{ #{name.replace(' ', '-')} }}\n"
    yield f"{inspect.cleandoc(verb.help)}\n"
    context = typer.Context(verb)
    pieces = " ".join(piece for each in verb.params for piece in each.get_usage_pieces(context))
    yield f"    drsow {name} {pieces}".rstrip() + " [OPTIONS]\n"
    for panel in dict.fromkeys(each.rich_help_panel for each in verb.params):
        yield f"| {panel or 'Options'} | |\n|---|---|"
        for each in verb.params:
            if each.rich_help_panel == panel:
                option, words = each.get_help_record(context)
                option = _KIND.sub(lambda found: KINDS.get(found[1], found[1]), option)
                # Between backticks a table's cell may hold bars.
                yield f"| `{option}` | {words.replace('|', '&#124;')} |"
        yield ""
