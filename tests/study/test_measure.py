"""Decisions that the run's dtype turns, worked out by hand."""

from pathlib import Path

from bench.registry import Pair
from bench.schema import SCHEMA_VERSION, Dataset, Example, ScoreKey
from bench.store.folder import ScoreSet, Store
from bench.study.measure import precision
from bench.subject import Subject

PAIR = Pair("p", "s", "w", "", "s", 1.0)
ROWS = Dataset("rows", "rows", "d", tuple(Example(name, "", (), (("chosen", ""), ("rejected", ""))) for name in "abc"))


def measured(root: Path, model_id: str, sums: dict[str, list[float]]) -> ScoreSet:
    """A set that was scored in bfloat16; for each response the sum in that dtype, and in float32."""
    key = ScoreKey(model_id, "r", "t", "", "", "d", "bfloat16", "cpu-torch", "sdpa", "1", SCHEMA_VERSION)
    found = Store(root).score_set(key)
    with found.lock():
        found.begin(1, {}, {"precision": {"sums_nats": sums}})
    return found


def test_a_decision_that_differs_from_float32_is_counted(tmp_path):
    strong = {
        "a chosen": [-5.0, -5.0],
        "a rejected": [-6.0, -4.0],  # leads: 1 in bfloat16, -1 in float32
        "b chosen": [-5.0, -5.5],
        "b rejected": [-7.0, -7.0],  # 2 and 1.5
        "c chosen": [-5.0, -5.0],
        "c rejected": [-5.0, -5.5],  # a tie, which is wrong, and 0.5
    }
    weak = {name: [-1.0, -1.0] for name in strong}
    sets = {(model, "s"): measured(tmp_path, model, sums) for model, sums in (("s", strong), ("w", weak))}
    assert precision(Subject("p", (PAIR,)), sets, ROWS) == {"p": {"n_examples": 3, "n_flipped": 2}}
