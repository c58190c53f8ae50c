"""A study at full size without a GPU: 44 models' scores of a world with a known effect, imported, then all files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import worlds

from bench.schema import Example
from bench.store.folder import Store
from bench.verbs.exchange import import_scores

SMALL = dict.fromkeys(worlds.SIZES, 6)

MEASURED = """
import json, resource, sys, time
from bench.cli import main
began = time.monotonic()
try:
    main()
finally:
    peaks = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps({"wall_s": time.monotonic() - began, "peak_mb": sum(peaks)}), file=sys.stderr)
"""


def write_world(folder: Path, *, sizes: dict[str, int], effect: float, seed: int, n_models: int = 44) -> Path:
    """A registry, a data file and imported score sets of a world's models; returns the results folder."""
    rng = np.random.default_rng(seed)
    models, rows = worlds.draw_models(effect=effect, rng=rng, n_models=n_models), worlds.draw_rows(rng=rng, sizes=sizes)
    data = worlds.dataset(sizes)
    frames = worlds.scores(models, worlds.model_margins(models, rows, rng=rng), data, rng=rng)
    (folder / "registry").mkdir(parents=True)
    (folder / "registry" / "models.toml").write_text(
        "".join(_model_entry(models, i) for i in range(len(models.model_ids)))
    )
    names = {str(name): models.model_ids[models.family == name].tolist() for name in pd.unique(models.family)}
    families = "".join(_family_entry(name, members) for name, members in names.items())
    study = f'[[studies]]\nstudy_id = "world"\nfamilies = {json.dumps(list(names))}\nperformance = "alpaca_eval_2_lc"\n'
    (folder / "registry" / "pairs.toml").write_text(families + study + 'second_performance = "arena_hard"\n')
    lines = [_row(example) for example in data.examples]
    (folder / "world.jsonl").write_text("\n".join(lines) + "\n")
    from bench.data.load import load_data

    dataset = load_data(str(folder / "world.jsonl"))
    for members in names.values():
        for model_id in members:
            file = folder / f"{model_id}.parquet"
            frames[model_id].to_parquet(file, index=False)
            import_scores(Store(folder / "results"), file, model_id, members[0], dataset, dtype="fp32")
    return folder / "results"


def _row(example: Example) -> str:
    row = {"prompt": example.messages[0].content, **dict(example.responses), "subset": example.subset}
    return json.dumps(row | {"id": example.example_id.partition("/")[2]})


def _family_entry(name: str, members: list[str]) -> str:
    head = f'[[families]]\nfamily_id = "{name}"\ntemplate = "{members[0]}"\nstart = "{members[0]}"\n'
    return f"{head}members = {json.dumps(members)}\n"


def _model_entry(models: worlds.Models, i: int) -> str:
    scores = {name: points[i] for name, points in models.performance.items() if np.isfinite(points[i])}
    lines = "".join(f'scores.{name} = {{ value = {value}, source = "drawn" }}\n' for name, value in scores.items())
    return (
        f'[[models]]\nmodel_id = "{models.model_ids[i]}"\nsource = {{ folder = "nowhere" }}\nformat = "safetensors"\n'
        f'method = "drawn"\nn_params = 8000000000\nlicence = "mit"\n{lines}\n'
    )


def drsow(folder: Path, *args: str) -> tuple[str, dict]:
    """Run the command in a process of its own; its stdout, and its time and memory."""
    options = ["--study", "world", "--data", str(folder / "world.jsonl"), "--results", str(folder / "results")]
    command = [sys.executable, "-c", MEASURED, *args, *options, "--registry", str(folder / "registry")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(done.stderr.splitlines()[-1])


@pytest.mark.slow
def test_a_planted_effect_is_found_drawn_chosen_from_and_redrawn_to_the_byte(tmp_path):
    results = write_world(tmp_path, sizes=SMALL, effect=0.05, seed=1)
    drsow(tmp_path, "leaderboard")
    drsow(tmp_path, "figures")
    folder = results / "world" / "world"
    board = pd.read_csv(folder / "leaderboard.csv")
    assert len(board) == 221 and set(board["family"]) == {"alpha", "beta", "gamma", "delta"}
    table = pd.read_csv(folder / "correlation.csv")
    row = table[(table["reward"] == "sum") & (table["estimator"] == "spearman") & (table["name"] == "score")]
    row = row[(row["family"] == "all") & (row["performance"] == "alpaca_eval_2_lc")].iloc[0]
    assert row["low"] > 0 and row["p_value"] < 0.01 and row["n_models"] == 44
    for name in ("gap_accuracy", "strong_weak", "strong_weak_overview", "subset_pair", "margins", "length"):
        for suffix in ("pdf", "png", "svg", "csv"):
            assert (folder / "figures" / f"{name}.{suffix}").stat().st_size > 500
    chosen, _ = drsow(tmp_path, "choose", "--section", "safety", "--format", "csv")
    best = board.sort_values("safety", ascending=False).iloc[0]["pair_id"]
    assert chosen.splitlines()[1].split(",")[2] == best
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    drsow(tmp_path, "figures")
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.slow
def test_the_whole_study_at_full_size_takes_under_90_s_and_2_gb(tmp_path):
    write_world(tmp_path, sizes=worlds.SIZES, effect=0.03, seed=3)
    _, tables = drsow(tmp_path, "leaderboard")
    _, drawn = drsow(tmp_path, "figures")
    print(tables, drawn)
    assert tables["wall_s"] + drawn["wall_s"] < 90
    assert max(tables["peak_mb"], drawn["peak_mb"]) < 2048
