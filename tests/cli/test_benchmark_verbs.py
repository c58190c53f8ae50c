"""Every verb on the rows of every benchmark: a pair and a study of tiny models, in one process."""

import json
from pathlib import Path

import pandas as pd
import pytest
from chat_templates import CHATML
from commands import write_rows
from tiny_models import entry, pair_entry, save_tiny
from tiny_tokenizers import byte_level

from bench.cli import app
from bench.data.load import load_data
from bench.files import read_csv
from bench.schema import PARTS, UsageError
from bench.store.folder import Store
from bench.study import figures
from bench.study.benchmarks import BENCHMARKS, benchmark_of
from bench.study.leaderboard import columns_of

DEVICE = ["--dtype", "fp32", "--device", "cpu"]

STUDY = (
    '[[families]]\nfamily_id = "three"\ntemplate = "one"\nmembers = ["one", "two", "three"]\n\n'
    '[[studies]]\nstudy_id = "all"\nfamilies = ["three"]\nperformance = "arena_hard"\n'
)


def best_of_four(subset: str, row: int) -> dict:
    texts = {"chosen": [f"It is {row}."], "rejected": [f"No {i}, {'or ' * i}{row}?" for i in range(3)]}
    return {"id": str(row), "prompt": f"{subset} {row}?", **texts, "num_correct": 1, "subset": subset}


def tied(form: str, row: int) -> dict:
    right = ["red", "blue", "green"] if form == "tied" else ["red"]
    more = {"chosen": [f"{word} {row}" for word in right], "rejected": [f"mud {row}", "no"], "num_correct": len(right)}
    return {"id": f"{form}:{row}", "prompt": f"Name {form} colours, {row}", "subset": "Ties", **more}


def styles(domain: str, row: int) -> dict:
    sides = {
        side: [word, f"{word}, {row} times", f"- **{word}**\n- {row}"]
        for side, word in (("chosen", "yes"), ("rejected", "no"))
    }
    return {"id": row, "prompt": f"{domain}: is it {row}?", "domain": domain, **sides}


def judged(source: str, row: int) -> dict:
    texts = {"response_A": f"So it is {row}.", "response_B": "It is not" + " so" * row}
    return {
        "pair_id": f"{source}-{row}",
        "source": source,
        "question": f"Which, {row}?",
        **texts,
        "label": ("A>B", "B>A")[row % 2],
    }


DATA = {
    "reward-bench-2": [
        *(best_of_four(subset, i) for subset in PARTS["reward-bench-2"][:5] for i in range(4)),
        *(tied(form, i) for form in ("ref", "tied") for i in range(4)),
    ],
    "rm-bench": [styles(name, i) for name in ("chat", "math", "code", "safety-refuse") for i in range(4)],
    "judge-bench": [judged(name, i) for name in ("mmlu-pro-law", *PARTS["judge-bench"][1:]) for i in range(4)],
    "plain": [
        {"prompt": f"Vowels, {i}?", "candidates": ["a", "b", "e", "z " * (i + 1)], "right": [0, 2]} for i in range(8)
    ],
}

DEFAULT = ("rm-bench",)
"""What is tried each time; the rest takes minutes."""


@pytest.fixture(scope="module")
def registry(tmp_path_factory) -> Path:
    """Three models in a study, two of them in a pair."""
    folder, models = tmp_path_factory.mktemp("registry"), ""
    for number, name in enumerate(("one", "two", "three"), start=1):
        tokenizer = byte_level(eos="<|im_end|>", special=["<|im_start|>"])
        tokenizer.chat_template = CHATML
        save_tiny(folder / name, tokenizer=tokenizer, seed=number)
        models += f'{entry(name, name).rstrip()}\nscores.arena_hard = {{ value = {number}, source = "a test" }}\n\n'
    (folder / "models.toml").write_text(models)
    (folder / "pairs.toml").write_text(pair_entry("pair", "two", "one") + STUDY)
    return folder


@pytest.fixture(scope="module", params=[pytest.param(n, marks=() if n in DEFAULT else pytest.mark.slow) for n in DATA])
def walk(request, registry, tmp_path_factory) -> tuple[str, Path, list[str]]:
    """A benchmark's name, the folder that a run of the pair and the study wrote to, and the words of every verb."""
    patch = pytest.MonkeyPatch()
    # The runs draw no figure, the verb `figures` does; no test here looks at what the draws decide.
    patch.setattr(figures, "FORMATS", ())
    patch.setattr("bench.study.board.DRAWS", 99)
    request.addfinalizer(patch.undo)
    folder = tmp_path_factory.mktemp("walk")
    data = write_rows(folder / "rows.jsonl", DATA[request.param])
    where = ["--registry", str(registry), "--data", str(data), "--results", str(folder / "results")]
    # A plan before the run counts what the run computes.
    app(["plan", "--pair", "pair", "--format", "json", *where], standalone_mode=False)
    app(["run", "--pair", "pair", *where, *DEVICE], standalone_mode=False)
    app(["run", "--study", "all", *where, *DEVICE], standalone_mode=False)
    patch.setattr(figures, "FORMATS", ("svg",))
    return request.param, folder, where


def test_a_file_is_recognised_by_its_columns_and_its_leaderboard_has_the_benchmarks_columns(walk):
    name, folder, _ = walk
    benchmark = benchmark_of(load_data(str(folder / "rows.jsonl")).examples)
    assert benchmark.name == name and name in [each.name for each in BENCHMARKS]
    board = read_csv(folder / "results" / "all" / "rows" / "leaderboard.csv")
    assert tuple(board.columns) == columns_of(benchmark)
    assert len(board) == 3 and board[["rank", "score", *benchmark.columns]].notna().all(axis=None)
    assert json.loads((folder / "results" / "pair" / "rows" / "manifest.json").read_text())["benchmark"] == name


def test_a_plan_counts_what_a_run_computes(walk, registry, capsys):
    _, folder, where = walk
    # The scores are in another folder, so that the plan counts them anew.
    words = [*where[:4], "--results", str(folder / "nothing")]
    app(["plan", "--pair", "pair", "--format", "csv", "--dtype", "fp32", *words], standalone_mode=False)
    lines = capsys.readouterr().out.splitlines()
    planned = pd.Series(
        [float(line.split(",")[3]) for line in lines[1:]], index=[line.split(",")[0] for line in lines[1:]]
    )
    for score_set in Store(folder / "results").find():
        if score_set.key.model_id in planned:
            computed = score_set.info()["n_computed_tokens"]
            assert planned[score_set.key.model_id] == pytest.approx(computed, rel=0.01)


@pytest.mark.slow  # figures of a study, a report with tokens, an ablation: minutes
def test_the_other_verbs_end_well(walk, capsys):
    name, folder, where = walk
    section = {"rm-bench": "hard", "reward-bench-2": "precise-if", "judge-bench": "livebench-math"}.get(name)
    for words in (
        ["leaderboard", "--study", "all", *where],
        ["figures", "--study", "all", *where],
        ["figures", "--pair", "pair", *where],
        ["report", "--study", "all", *where, *DEVICE[:2]],
        ["report", "--pair", "pair", *where, *DEVICE, "--tokens"],
        ["compare", "three--two", "two--one", *where],
        ["choose", "--study", "all", *where],
        *([["choose", "--study", "all", "--section", section, *where]] if section else []),
        ["ablate", "--pair", "pair", "--router", "classifier", *where, *DEVICE],
        ["board", "--study", "all", *where[:2], *where[4:]],
    ):
        app(words, standalone_mode=False)
    assert "nan" not in capsys.readouterr().out.lower()
    results = folder / "results"
    drawn = {path.stem for path in (results / "pair" / "rows" / "figures").glob("*.svg")}
    assert ("matrix" in drawn) == (name == "rm-bench") and ("ties" in drawn) == (name == "reward-bench-2")
    assert len(read_csv(results / "all" / "rows" / "correlation.csv"))
    page = (results / "pair" / "rows" / "report.html").read_text()
    assert "right" in page or name in ("judge-bench",)
    if name != "plain":
        assert read_csv(results / "all" / "board.csv")["mean_rank"].notna().all()


def test_a_section_that_a_benchmark_lacks_is_refused(walk):
    name, _, where = walk
    with pytest.raises(UsageError, match="leave the option out" if name == "plain" else "unknown section 'chatt'"):
        app(["choose", "--study", "all", "--section", "chatt", *where], standalone_mode=False)


def test_six_responses_of_a_prompt_cost_their_unique_tokens(registry, tmp_path):
    """At most 1.05 of the inner nodes of one token trie over all rows; last tokens need no computation."""
    from bench.registry import load_registry
    from bench.scoring.passes import Work, make_ready, resolved
    from bench.scoring.plan import exact_tokens
    from bench.scoring.scorer import Scorer

    data = load_data(str(write_rows(tmp_path / "rows.jsonl", [styles("chat", i) for i in range(60)])))
    known, options = load_registry(registry), resolved("fp32", "cpu")
    ready = make_ready(Work(known.model("two"), known.model("two"), data), options, ops="none")
    nodes = set()
    for sequence in Scorer(ready, options).rendered(data.examples).sequences:
        ids = sequence.ids.tolist()
        nodes |= {tuple(ids[: end + 1]) for end in range(len(ids) - 1)}
    assert len(nodes) <= exact_tokens(ready, options) <= 1.05 * len(nodes)
