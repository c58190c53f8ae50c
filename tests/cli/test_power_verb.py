"""The verb `plan --power`."""

import io

import pandas as pd
import pytest

from bench.cli import app
from bench.schema import UsageError


def test_power_is_printed_by_number_of_models(capsys):
    app(["plan", "--power", "--models", "8", "--models", "12", "--families", "2", "--rho", "0.9", "--format", "csv"],
        standalone_mode=False)  # fmt: skip
    table = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert table[["n_models", "n_families", "n_pairs", "rho", "n_rows"]].to_numpy().tolist() == [
        [8, 2, 12, 0.9, 2985],
        [12, 2, 30, 0.9, 2985],
    ]
    assert table["power"][0] < table["power"][1]


def test_a_study_gives_its_families_and_the_data_their_rows(capsys):
    words = ["--study", "packaged", "--data", "sample", "--models", "4", "--rho", "0", "--format", "csv"]
    app(["plan", "--power", *words], standalone_mode=False)
    table = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert table[["n_models", "n_families", "n_pairs", "n_rows"]].to_numpy().tolist() == [[4, 1, 6, 184]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pair", "embedded", "--rho", "0.5"], "--rho needs --power"),
        (["--power", "--pair", "embedded"], "leave out --pair"),
        (["--power", "--gpu", "h100"], "--power takes no --gpu: it plans how many models"),
        (["--power", "--calibrate"], "--power takes no --calibrate: "),
        (["--power", "--limit-per-subset", "5"], "--power takes no --limit-per-subset: "),
        (["--power", "--study", "packaged", "--rows", "9", "--limit-per-subset", "5"], "no --limit-per-subset: "),
        (["--power", "--dtype", "auto"], "--power takes no --dtype: "),
        (["--power", "--template", "shared"], "--power takes no --template: "),
        (["--power", "--rho", "1"], "--rho 1: give a correlation between"),
        (["--power", "--rho", "nan"], "--rho nan: give a correlation between"),
        (["--power", "--models", "7"], "--models 7: 4 families of at least 2 models need 8"),
        (["--power", "--models", "500"], "--models 500: give at most 200"),
        (["--power", "--study", "packaged", "--families", "2"], "leave out --families"),
    ],
)
def test_what_makes_no_plan_is_refused(words, message):
    with pytest.raises(UsageError, match=message):
        app(["plan", *words], standalone_mode=False)
