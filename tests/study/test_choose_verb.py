"""`drsow choose` and the leaderboard's held-out column on stored scores, in this process."""

import io
import json
import re
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
import worlds
from test_full_study import write_world

from bench.cli import main
from bench.files import read_csv
from bench.registry import load_registry
from bench.schema import LEADERBOARD, PreconditionError
from bench.study.board import stored_accuracy
from bench.study.choose import CHOICE
from bench.study.draw import write_tables

FEW = dict.fromkeys(worlds.SIZES, 5)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with the registry, data and stored scores of a study of twelve models, and no tables."""
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, sizes=FEW, effect=0.05, seed=2, n_models=12)
    return folder


class Ended(NamedTuple):
    """What a verb left behind."""

    out: str
    err: str
    code: int


def drsow(world: Path, verb: str, *words: str, data: str = "world.jsonl", results: str = "results") -> Ended:
    """Run a verb on the study in this process."""
    where = ["--study", "world", "--data", str(world / data), "--results", str(world / results)]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(out), redirect_stderr(err):
        patched.setattr(sys, "argv", ["drsow", verb, *where, "--registry", str(world / "registry"), *words])
        # the tests of the gap are not looked at here, and take most of the time
        patched.setattr("bench.study.board.DRAWS", 19)
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
    return Ended(out.getvalue(), err.getvalue(), code)


@pytest.fixture(scope="module")
def boards(world) -> tuple[Path, str, pd.DataFrame]:
    """The results folder with its tables, what the leaderboard printed, and the one that another seed makes."""
    shutil.copytree(world / "results", world / "again")
    other = drsow(world, "leaderboard", "--seed", "5", results="again")
    shutil.copytree(world / "results", world / "tabled")
    done = drsow(world, "leaderboard", results="tabled")
    assert (done.code, other.code) == (0, 0), done.err + other.err
    folder = Path("world", "world")
    return world / "tabled" / folder, done.out, read_csv(world / "again" / folder / "leaderboard.csv")


def test_choose_needs_the_scores_and_no_tables(world):
    out, err, code = drsow(world, "choose", "--format", "json")
    assert code == 0, err
    found = pd.DataFrame(json.loads(out))
    assert tuple(found.columns) == CHOICE
    assert (found["n_rows"] == 115).all() and (found["n_candidates"] == 12).all()
    assert found["held_out_low"].between(0, 1).all() and found["held_out_high"].between(0, 1).all()
    assert not (world / "results" / "world").exists()


def test_choose_says_who_is_not_worse_than_the_best(world):
    out = drsow(world, "choose").out
    assert "Ranked 12 pairs on 115 rows" in out
    names = re.search(r"\(model confidence set\): \d+ pairs?: (.*)", out)[1].split(", ")
    rules = set(re.findall(r"^The (\w+) of 3 best pairs .* points on held-out problems, for \d", out, re.MULTILINE))
    assert rules == {"mean", "minimum", "fitted"}
    assert set(names) <= {f"{a}--{b}" for a, b in (name.split("--") for name in names)} and len(names) >= 1


def test_equal_seeds_give_equal_choices_and_other_seeds_others(world):
    default, again, seeded, other = (
        drsow(world, "choose", "--format", "csv", *words).out for words in ((), (), ("--seed", "1"), ("--seed", "2"))
    )
    assert default == again
    assert len({default, seeded, other}) == 3


def test_without_stored_scores_choose_says_what_to_run(world):
    (world / "other.jsonl").write_text((world / "world.jsonl").read_text().replace("Right 0", "Right nought"))
    out, err, code = drsow(world, "choose", data="other.jsonl")
    assert (out, code) == ("", 4)
    assert "alpha-000 is not scored on other" in err and "stores it" in err


def test_the_leaderboard_says_what_its_first_place_is_worth_elsewhere(boards):
    folder, printed, other = boards
    board = read_csv(folder / "leaderboard.csv")
    assert tuple(board.columns) == LEADERBOARD
    assert board["score_held_out"].notna().all()
    assert f"expected to score {board['score_held_out'][0]:.1%} (score_held_out)" in " ".join(printed.split())
    assert other["score_held_out"].tolist() != board["score_held_out"].tolist()
    # where no draw takes part, a seed changes nothing
    assert other[["score", "score_low", "score_high"]].equals(board[["score", "score_low", "score_high"]])


@pytest.mark.parametrize("words", [(), ("--seed", "5")])
def test_choose_and_the_leaderboard_expect_the_same_of_the_first_places(boards, world, words):
    board = boards[2] if words else read_csv(boards[0] / "leaderboard.csv")
    out, err, code = drsow(world, "choose", "--top", "12", *words, "--format", "json")
    assert code == 0, err
    found = pd.DataFrame(json.loads(out)).query("rule == 'best score'")
    # Pairs of one rank share the mean of their places.
    mine = found["held_out"].groupby(found["score"], sort=False).transform("mean")
    assert list(mine) == pytest.approx(list(board["score_held_out"]), abs=1e-9)


def test_every_table_shows_one_interval(boards, world):
    folder = boards[0]
    board, table = read_csv(folder / "leaderboard.csv"), read_csv(folder / "accuracy.csv")
    overall = table[(table["level"] == "overall") & (table["reward"] == "sum")].set_index("pair_id")
    assert overall["low"].loc[board["pair_id"]].tolist() == board["score_low"].tolist()
    write_tables(folder, load_registry(world / "registry"), provenance="")
    printed = read_csv(folder / "tables" / "rewardbench.csv").query("source == 'measured'").set_index("pair_id")
    low = printed["score_low_percent"].loc[board["pair_id"]] / 100
    assert low.tolist() == pytest.approx(board["score_low"].tolist())


def test_a_table_without_intervals_is_named_with_the_verb_that_makes_it_anew(boards, tmp_path):
    old = read_csv(boards[0] / "accuracy.csv").drop(columns=["low", "high"])
    old.to_csv(tmp_path / "accuracy.csv", index=False)
    with pytest.raises(PreconditionError, match=r"accuracy\.csv: an earlier version .*`drsow leaderboard`"):
        stored_accuracy(tmp_path)
