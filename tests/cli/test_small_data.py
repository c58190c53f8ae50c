"""Data of few rows or of no variation: every verb ends with what it can say, or with one line that says why not."""

from pathlib import Path

import pytest
from chat_templates import CHATML
from commands import write_rows
from tiny_models import entry, pair_entry, save_tiny
from tiny_tokenizers import byte_level

from bench.cli import app
from bench.files import read_csv
from bench.schema import DrsowError
from bench.study import figures

DEVICE = ["--dtype", "fp32", "--device", "cpu"]

CONTEXT = 1200
LONG = "word " * 300
"""More tokens than the context holds."""

STUDY = (
    '[[families]]\nfamily_id = "three"\ntemplate = "one"\nmembers = ["one", "two", "three"]\n\n'
    '[[studies]]\nstudy_id = "all"\nfamilies = ["three"]\nperformance = "arena_hard"\n'
)


def row(number: int, **fields: str) -> dict:
    return {"id": number, "prompt": f"Is {number} it?", "chosen": "yes it is", "rejected": "no"} | fields


DATA = {
    "one row": [row(0)],
    "equal differences in length": [row(i, chosen=f"yes {i}", rejected=f"no {i}") for i in range(6)],
    "equal margins": [row(i, prompt="It?") for i in range(3)],
    "ties": [row(i, chosen="yes", rejected="yes ") for i in range(3)],
    "one subset of RewardBench": [row(i, subset="hep-go", chosen="y" * (i + 1)) for i in range(3)],
    "all too long": [row(i, prompt=LONG) for i in range(2)],
    "one subset too long": [row(i, subset="ab"[i % 2], prompt=LONG if i % 2 else "It?") for i in range(4)],
}

SAYS = {
    ("all too long", "annotate"): "no prompt is left to learn from (unscored 2)",
    ("all too long", "show"): "0: response chosen has ",
    ("all too long", "judge"): "the model reads at most 1,199",
    ("one subset too long", "judge"): "the model reads at most 1,199",
    ("one subset of RewardBench", "compare"): "no section of RewardBench is whole in it",
}
"""What ends in one line, and in which; all else ends well."""


@pytest.fixture(scope="module")
def registry(tmp_path_factory) -> Path:
    """Three models in a study, two of them in a pair."""
    folder = tmp_path_factory.mktemp("registry")
    models = ""
    for number, name in enumerate(("one", "two", "three"), start=1):
        tokenizer = byte_level(eos="<|im_end|>", special=["<|im_start|>"])
        tokenizer.chat_template = CHATML
        save_tiny(folder / name, tokenizer=tokenizer, seed=number, context=CONTEXT)
        score = f'scores.arena_hard = {{ value = {number}, source = "a test" }}\n\n'
        models += entry(name, name).rstrip() + "\n" + score
    (folder / "models.toml").write_text(models)
    (folder / "pairs.toml").write_text(pair_entry("pair", "two", "one") + STUDY)
    return folder


DEFAULT = ("one row", "all too long")
"""What is tried each time; the rest takes minutes."""


@pytest.fixture(scope="module", params=[pytest.param(n, marks=() if n in DEFAULT else pytest.mark.slow) for n in DATA])
def walk(request, registry, tmp_path_factory) -> tuple[str, Path, list[str]]:
    """A data set's name, the folder that a run of the pair and the study wrote to, and the words of every verb."""
    # One format is enough to see that a figure is drawn.
    patch = pytest.MonkeyPatch()
    patch.setattr(figures, "FORMATS", ("svg",))
    request.addfinalizer(patch.undo)
    folder = tmp_path_factory.mktemp("walk")
    rows = DATA[request.param]
    data = write_rows(folder / "rows.jsonl", rows)
    write_rows(folder / "candidates.jsonl", [{**r, "candidates": [r["chosen"], r["rejected"], "so"]} for r in rows])
    where = ["--registry", str(registry), "--data", str(data), "--results", str(folder / "results")]
    app(["run", "--pair", "pair", *where, *DEVICE], standalone_mode=False)
    app(["run", "--study", "all", *where, *DEVICE], standalone_mode=False)
    return request.param, folder, where


def said(name: str, words: list[str]) -> str:
    """The one line with which a verb ends, "" where it ends well; anything but a DrsowError is a failure."""
    try:
        app(words, standalone_mode=False)
    except DrsowError as error:
        return str(error)
    return ""


def check(name: str, words: list[str]) -> None:
    expected, line = SAYS.get((name, words[0]), ""), said(name, words)
    assert "\n" not in line and (expected in line if expected else not line), f"{words[0]} on {name}: {line}"


def test_a_pairs_verbs_end_well(walk, registry):
    name, folder, where = walk
    apart = ["--registry", str(registry), *where[4:]]
    first = DATA[name][0]
    row_id = "/".join(str(first[field]) for field in ("subset", "id") if field in first)
    candidates = ["--candidates", str(folder / "candidates.jsonl")]
    for words in (
        ["report", "--pair", "pair", *where, *DEVICE, "--tokens"],
        ["agree", "--pair", "pair", "--model", "one", *where, *DEVICE],
        ["ablate", "--pair", "pair", "--router", "classifier", *where, *DEVICE],
        ["show", "--pair", "pair", "--id", row_id, *where[:4], *DEVICE],
        ["annotate", "--pair", "pair", *candidates, "--out", str(folder / "labels"), *apart, *DEVICE],
        ["route", "--router", "model", "--model", "one", "--out", str(folder / "routes.csv"), *where, *DEVICE],
        ["select", *candidates, "--strategy", "centroid", "--model", "one", "--out", str(folder / "picked.jsonl"),
         *apart[:2], *DEVICE],
        ["judge", "--before", "one", "--after", "two", "--pair", "pair", "--prompts", where[3], "--n", "1",
         "--max-new-tokens", "4", "--out", str(folder / "judged"), *apart, *DEVICE],
        ["verify", "--model", "one", "--template", "two", "--rows", "2", "--device", "cpu", *where],
        ["scores", "--model", "three", "--out", str(folder / "three.csv"), *where],
    ):  # fmt: skip
        check(name, words)


def test_a_studys_verbs_end_well(walk, registry):
    name, _, where = walk
    for words in (
        ["leaderboard", "--study", "all", *where],
        ["report", "--study", "all", *where],
        ["compare", "three--two", "two--one", *where],
    ):
        check(name, words)
    line = said(name, ["choose", "--study", "all", *where])
    assert "\n" not in line


def test_the_counts_are_those_of_the_rows(walk):
    name, folder, _ = walk
    n_long = sum(example["prompt"] == LONG for example in DATA[name])
    for table in ("pair/rows", "all/rows"):
        board = read_csv(folder / "results" / table / "leaderboard.csv")
        assert set(board["n_excluded"]) == {n_long}
        assert set(board["n_examples"]) == {len(DATA[name]) - n_long}
        bins = read_csv(folder / "results" / table / "length.csv")
        per_pair = bins[bins["reward"] == "sum"].groupby("pair_id")[["n_examples", "n_excluded"]].sum()
        assert set(per_pair.sum(axis=1)) == {len(DATA[name])}
