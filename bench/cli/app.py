"""The typer application that all verbs register with, and the groups that `--help` shows them in."""

from typing import Annotated, Any

import typer

SCORE, CHOOSE, CUSTOMISE, LABEL, TUNE = "Score", "Choose", "Customise", "Label", "Tune"
EXCHANGE, LOOK_UP = "Exchange", "Look up"
"""The groups of verbs, as in README's table."""


class Verbs(typer.core.TyperGroup):
    """The verbs in the order of the help.

    typer puts groups last. `models` and `pairs` are groups, and here they come before `fetch`, which takes what they
    list.
    """

    def __init__(self, **attributes: Any) -> None:
        """Takes what typer gives."""
        super().__init__(**attributes)
        own = {name: verb for name, verb in self.commands.items() if isinstance(verb, typer.core.TyperGroup)}
        others = {name: verb for name, verb in self.commands.items() if name not in own}
        at = list(others).index("fetch")
        self.commands = dict([*list(others.items())[:at], *own.items(), *list(others.items())[at:]])


app = typer.Typer(
    name="drsow",
    cls=Verbs,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _version(asked: bool) -> None:
    if asked:
        import importlib.metadata

        print(f"drsow {importlib.metadata.version('drsow')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def drsow(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", metavar="", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", metavar="", help="Print the traceback of an unexpected error; so does DRSOW_DEBUG=1."),
    ] = False,
) -> None:
    """Find the pair of language models that judges best, by density-ratio rewards; each model is scored once."""
    if ctx.invoked_subcommand is None:
        # If rich is installed, typer prints the help itself and returns an empty text.
        print(ctx.get_help(), end="")
