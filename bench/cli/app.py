"""The typer application that the verbs hang themselves on."""

import typer

app = typer.Typer(
    name="drsow",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Which pair of language models judges best: density-ratio rewards, each model scored once.",
)
