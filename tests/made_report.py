"""Reports of made-up studies, for the tests of the page."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from study import worlds

from bench.schema import CORRELATION, Dataset, Example, Message
from bench.study.analysis import correctness
from bench.study.leaderboard import bootstrap_scores, leaderboard
from bench.study.length_balance import LENGTH_BALANCED
from bench.study.metrics import accuracy
from bench.study.reliability import sureness
from bench.study.report.cases import N_ROWS, cases, wrong_rows
from bench.study.report.gather import Report
from bench.study.report.sure import Checks
from bench.study.reward import margins
from bench.study.stretches import STRETCHES

HOSTILE = (
    "<script>window.broken = true; alert(1)</script>",
    "</script><img src=x onerror=\"window.broken = true\"><svg onload='window.broken = true'>",
)


def made_report(
    *,
    n_models: int = 12,
    sizes: dict[str, int] | None = None,
    n_characters: int = 60,
    shaded: bool = True,
    hostile: bool = False,
) -> Report:
    """The report of a world.

    Args:
        n_models: In four families.
        sizes: Rows of each subset; 4 of each where not given.
        n_characters: Length of each response.
        shaded: Whether the rows that are shown have stretches.
        hostile: Whether texts, a family's and a model's name are HTML that runs.
    """
    rng = np.random.default_rng(20241104)
    sizes = sizes or dict.fromkeys(worlds.SIZES, 4)
    models = worlds.draw_models(effect=0.1, rng=rng, n_models=n_models)
    data = _written(worlds.dataset(sizes), n_characters, hostile)
    judged = worlds.model_margins(models, worlds.draw_rows(rng=rng, sizes=sizes), rng=rng)
    scores = worlds.scores(models, judged, data, rng=rng)
    pairs = worlds.all_pairs(models)
    subsets = pd.Series({e.example_id: e.subset for e in data.examples})
    rows = pd.concat(
        [margins(scores[p.strong], scores[p.weak], subsets, pair_id=p.pair_id) for p in pairs.itertuples()]
    )
    table = accuracy(rows[rows["reward"] == "sum"])
    correct, levels = correctness(scores, pairs, {e.example_id: e for e in data.examples}, reward="sum")
    draws = bootstrap_scores(correct, levels, rng=rng, draws=100)
    board = leaderboard(table, draws, pairs, _described(models.model_ids))
    if hostile:
        pairs["family"] = board["family"] = "<b onclick=alert(1)>family"
    examples = {e.example_id: e for e in data.examples}
    found, n_wrong = [], {}
    for row in board.head(10).itertuples():
        wrong = wrong_rows(scores[row.strong], scores[row.weak], reward="sum")
        worst, n_wrong[row.pair_id] = wrong.head(N_ROWS), len(wrong)
        stretches = _stretches(worst.index if shaded else [], examples, rng)
        found += cases(row.pair_id, worst, examples, stretches)
    sets = [{"key": {"model_id": m, "revision": "c0ffee" * 7, "dtype": "float32", "ops": "cpu-torch"},
             "info": {"template": "alpha-000", "device": "cpu", "versions": {"torch": "2.13.0"}}}
            for m in models.model_ids]  # fmt: skip
    return Report(
        "made-up", "A world whose truth is known.", data, "the made-up board", "board", board, table,
        _correlation(board), {"score_sets": sets, "precision": {}}, tuple(found), "", n_wrong,
        checks=_checks(board, table),
    )  # fmt: skip


def _written(data: Dataset, n_characters: int, hostile: bool) -> Dataset:
    """The data with responses of that length, and with texts that would run."""
    examples = []
    for number, example in enumerate(data.examples):
        words = f"Response {number} with words that say little. " * (n_characters // 40 + 1)
        texts = tuple((name, f"{name}: {words}"[:n_characters]) for name, _ in example.responses)
        messages = example.messages
        if hostile:
            texts = tuple((name, HOSTILE[number % 2] + text) for name, text in texts)
            messages = (Message("user", HOSTILE[0]),)
        examples.append(Example(example.example_id, example.subset, messages, texts))
    return data._replace(examples=tuple(examples))


def _described(model_ids: np.ndarray) -> pd.DataFrame:
    """What a leaderboard is told of models."""
    return pd.DataFrame(
        {
            "model_id": model_ids,
            "revision": "c0ffee",
            "dtype": "float32",
            "n_params": 7e9,
            "n_params_active": 7e9,
            "licence": "apache-2.0",
            "n_tokens_row": np.linspace(500, 700, len(model_ids)),
        }
    )


def _stretches(ids: list[str], examples: dict[str, Example], rng: np.random.Generator) -> pd.DataFrame:
    """Stretches of four bytes each, and the end of turn."""
    frames = []
    for example_id in ids:
        for name, text in examples[example_id].responses:
            ends = np.append(np.arange(4, len(text.encode()), 4), len(text.encode()))
            starts = np.append(0, ends[:-1])
            frame = pd.DataFrame({"byte_start": np.append(starts, ends[-1]), "byte_end": np.append(ends, ends[-1])})
            ratio = rng.normal(0, 1.2, len(frame))
            spans = frame[["byte_start", "byte_end"]].to_numpy().tolist()
            texts = [text.encode()[low:high].decode(errors="replace") for low, high in spans]
            frames.append(frame.assign(example_id=example_id, response_id=name, text=texts, ratio_nats=ratio))
    return pd.concat(frames) if frames else pd.DataFrame(columns=["example_id", "response_id", *STRETCHES])


def _correlation(board: pd.DataFrame) -> pd.DataFrame:
    """Spearman's rho and a slope of the score and each section, as a study's statistics would give them."""
    lines = [
        ("sum", "overall" if name == "score" else "section", name, "all", "board", estimator,
         estimate, estimate - 0.2, estimate + 0.1, 0.0004, len(board), 12, 92, 0.0004, name == "score")
        for name in ("score", "chat", "chat-hard", "safety", "reasoning")
        for estimator, estimate in (("spearman", 0.55), ("slope", 0.8))
    ]  # fmt: skip
    return pd.DataFrame(lines, columns=list(CORRELATION))


def sure_frames(pair_ids: Iterable[str], n: int) -> list[pd.DataFrame]:
    """CALIBRATION, RELIABILITY and COVERAGE of n random margins of each pair."""
    frames: list[list[pd.DataFrame]] = [[], [], []]
    for seed, pair_id in enumerate(pair_ids):
        rng = np.random.default_rng(seed)
        found = sureness(rng.normal(0.5, size=n), np.arange(n), rng=rng)
        each = (pd.DataFrame([found.calibration]), found.reliability, found.coverage)
        for rows, frame in zip(frames, each, strict=True):
            rows.append(frame.assign(pair_id=pair_id, reward="sum"))
    return [pd.concat(rows, ignore_index=True) for rows in frames]


def _checks(board: pd.DataFrame, table: pd.DataFrame) -> Checks:
    """Every pair keeps its accuracy when lengths are balanced; "longer" does better than the first pair."""
    first = (table["pair_id"] == board["pair_id"].iloc[0]) & (table["level"] == "overall")
    counts = {"n_longer": 40, "n_shorter": 50, "n_equal": 2, "n_excluded": 0}
    balance = table.assign(balanced=table["accuracy"], longer=0.25, shorter=0.5, as_good="", **counts)
    balance.loc[first, ["longer", "as_good"]] = [0.9876, "longer"]
    return Checks(balance[list(LENGTH_BALANCED)], *sure_frames(board["pair_id"].head(3), 120))
