"""The verb `rewards`: compare all rewards of a pair."""

import sys

from bench.cli.app import CHOOSE, app
from bench.cli.options import (
    RESULTS,
    As,
    Data,
    Dtype,
    Format,
    Limit,
    OnePair,
    OpsOption,
    RegistryDir,
    Results,
    Seed,
    StoredDtype,
    TemplateMode,
    TemplateOption,
)
from bench.cli.printed import emit
from bench.cli.session import Rows, select_stored
from bench.cli.views import VIEWS


@app.command(rich_help_panel=CHOOSE)
def rewards(
    pair: OnePair,
    data: Data = "reward-bench",
    limit: Limit = None,
    template: TemplateOption = TemplateMode.shared,
    dtype: StoredDtype = Dtype.auto,
    ops: OpsOption = None,
    results: Results = RESULTS,
    registry: RegistryDir = None,
    seed: Seed = None,
    output: As = Format.table,
) -> None:
    """Compare all rewards of a pair on the same rows, from stored scores; those of tokens need `run --tokens`."""
    known, (subject,), dataset = select_stored(registry, [pair], None, template, rows=Rows(data, limit))

    from bench.store.folder import Store
    from bench.verbs.rewards import compare_rewards
    from bench.verbs.told import lookup_of

    lookup = lookup_of(known, dtype=dtype.value, ops=ops)
    found, files = compare_rewards(subject, dataset, Store(results), lookup=lookup, seed=seed)
    # A terminal shows the score; sections are in the files.
    shown = found.table[found.table["level"] == "overall"] if output is Format.table else found.table
    emit(shown, output, VIEWS["rewards"], title=f"Rewards of {pair}")
    for path in files:
        print(path, file=sys.stdout if output is Format.table else sys.stderr)
