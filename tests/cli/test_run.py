"""What the verbs write and print, each in a process of its own."""

import io
import json
import math
import os
import re
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from commands import COMMAND, environment, lasting, leftovers
from tiny_models import entry, pair_entry

import bench
from bench.files import read_csv, write_csv
from bench.schema import ACCURACY, SCORES, TOKEN_REWARDS
from bench.store.folder import Store
from bench.study.benchmarks.plain import PLAIN
from bench.study.figures import FORMATS
from bench.study.leaderboard import columns_of
from bench.study.rewards.known import KNOWN

pytestmark = pytest.mark.slow  # a process of its own for every fact: minutes

FOLDER = "tiny/rows"


def imported(stderr: str) -> set[str]:
    """Top-level modules that PYTHONPROFILEIMPORTTIME=1 tells of."""
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in stderr.splitlines() if "|" in line}


def exported(drsow, results, tiny_run, folder) -> dict[str, pd.DataFrame]:
    """The stored scores of both models, by example_id and response_id, out of the store by `drsow scores`."""
    frames = {}
    for model in ("tiny-strong", "tiny-weak"):
        out = folder / f"{model}.csv"
        where = ["--registry", tiny_run[2], "--data", tiny_run[6], "--results", results]
        done = drsow("scores", "--model", model, "--out", out, *where)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        frames[model] = read_csv(out)
        assert tuple(frames[model].columns) == SCORES
    return {model: frame.set_index(["example_id", "response_id"]) for model, frame in frames.items()}


def totals(frame: pd.DataFrame) -> pd.Series:
    return frame["logp_sum_nats"] + frame["logp_end_nats"]


def test_a_run_writes_tables_and_figures_and_prints_the_leaderboard(finished):
    folder, done = finished
    assert done.returncode == 0, done.stderr
    board, table = (read_csv(folder / FOLDER / f"{name}.csv") for name in ("leaderboard", "accuracy"))
    assert (tuple(board.columns), tuple(table.columns)) == (columns_of(PLAIN), ACCURACY)
    assert set(table["name"]) >= {"score", "numbers", "words"}
    assert (folder / FOLDER / "manifest.json").is_file()
    assert all((folder / FOLDER / "figures" / f"accuracy.{each}").stat().st_size > 10_000 for each in FORMATS)
    assert (folder / FOLDER / "figures" / "accuracy.csv").is_file()
    header, row, *_ = done.stdout.splitlines()
    assert header.split()[:2] == ["rank", "pair"]
    assert "tiny" in row.split()
    # Rows of one's own have no sections: their score is the plain share of right ones.
    assert "accuracy %" in header and f" {100 * board['score'][0]:.1f} [" in row
    assert str(folder / FOLDER / "leaderboard.csv") in done.stdout


def test_progress_is_on_stderr_alone(finished):
    _, done = finished
    lines = done.stderr.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["tiny-strong", "tiny-weak"]
    assert all(" 24 of 24 rows, " in line and " tokens/s, 0 s left" in line for line in lines)


def test_the_accuracy_is_that_of_the_stored_sums(drsow, finished, tiny_run, tmp_path):
    frames = exported(drsow, finished[0], tiny_run, tmp_path)
    reward = totals(frames["tiny-strong"]) - totals(frames["tiny-weak"])
    margin = reward.xs("chosen", level=1) - reward.xs("rejected", level=1)
    table = read_csv(finished[0] / FOLDER / "accuracy.csv").query("reward == 'sum'").set_index("name")
    assert table.loc["score", "accuracy"] == pytest.approx((margin > 0).mean())
    for subset in ("numbers", "words"):
        right = margin[margin.index.str.startswith(f"{subset}/")] > 0
        assert table.loc[subset, "accuracy"] == pytest.approx(right.mean())
        assert table.loc[subset, "n_examples"] == len(right) == 12


def test_a_second_run_loads_no_model_and_says_the_same(drsow, tiny_run, finished, results):
    done = drsow(*tiny_run, "--results", results, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    assert imported(done.stderr) & {"transformers", "tokenizers", "safetensors"} == set()
    assert done.stdout == finished[1].stdout.replace(str(finished[0]), str(results))
    assert lasting(results) == lasting(finished[0])


def test_tokens_over_stored_sums_go_on_after_a_kill_and_change_no_other_file(drsow, tiny_run, results):
    def files() -> dict[str, bytes]:
        paths = (results / "scores").rglob("*")
        return {str(path): path.read_bytes() for path in paths if path.is_file() and not path.name.endswith(".tmp")}

    before = files()
    words = [*tiny_run, "--results", results, "--tokens"]
    assert drsow(*words, DRSOW_CRASH_AT="before-rename:tokens-0001").returncode == 137
    done = drsow(*words)
    assert done.returncode == 0 and "parts are stored without tokens" in done.stderr
    after = files()
    assert {path: data for path, data in after.items() if "tokens-" not in path} == before
    assert all(score_set.has_tokens for score_set in Store(results).find())


def test_rewards_of_tokens_are_compared_once_they_are_stored_and_rank_a_leaderboard(drsow, tiny_run, results):
    words = ["--registry", tiny_run[2], "--pair", "tiny", "--data", tiny_run[6], "--results", results]
    done = drsow("rewards", *words, "--format", "csv")
    assert done.returncode == 0 and "`drsow run --tokens` stores them" in done.stderr
    assert set(pd.read_csv(io.StringIO(done.stdout))["reward"]) == KNOWN.keys() - set(TOKEN_REWARDS)
    done = drsow("leaderboard", *words, "--reward", "peak")
    assert done.returncode == 4
    assert re.fullmatch(r"drsow: reward peak: tiny-\w+: .*; `drsow run --tokens` stores them\n", done.stderr)
    done = drsow(*tiny_run, "--results", results, "--reward", "peak")
    assert done.returncode == 0, done.stderr
    board = read_csv(results / f"{FOLDER}-peak" / "leaderboard.csv")
    assert board["reward"].tolist() == ["peak"]
    done = drsow("rewards", *words, "--format", "csv")
    table = pd.read_csv(io.StringIO(done.stdout))
    assert list(pd.unique(table["reward"])) == list(KNOWN)
    peak = table[(table["reward"] == "peak") & (table["level"] == "overall")]["accuracy"].iloc[0]
    assert peak == pytest.approx(board["score"].iloc[0])
    report = drsow("report", *words)
    page = (results / FOLDER / "report.html").read_text()
    assert report.returncode == 0 and 'id="rewards"' in page and '<a href="#rewards">Rewards</a>' in page


def test_a_seed_is_recorded_and_repeats_the_draws(drsow, tiny_run, results):
    boards = []
    for words in ([], ["--seed", 1], ["--seed", 1]):
        done = drsow("leaderboard", *tiny_run[1:7], "--results", results, *words)
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads((results / FOLDER / "manifest.json").read_text())["seed"] == (words[1] if words else None)
        boards.append(read_csv(results / FOLDER / "leaderboard.csv"))
    pd.testing.assert_frame_equal(boards[1], boards[2])
    assert {board.loc[0, "score"] for board in boards} == {boards[0].loc[0, "score"]}


@pytest.mark.parametrize("verb", ["leaderboard", "figures"])
def test_tables_and_figures_are_made_again_without_torch(drsow, tiny_run, finished, results, verb):
    made = [path for path in (results / "tiny").rglob("*") if path.is_file()]
    if verb == "leaderboard":
        for path in made:
            path.unlink()
    else:
        for path in made:
            if path.parent.name == "figures":
                path.unlink()
    done = drsow(verb, *tiny_run[1:7], "--results", results, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    assert imported(done.stderr) & {"torch", "transformers"} == set()
    again, before = lasting(results), lasting(finished[0])
    assert again == {name: before[name] for name in again}
    figures = {str(path.relative_to(results)) for path in results.rglob("figures/*")}
    if verb == "leaderboard":
        assert done.stdout == finished[1].stdout.replace(str(finished[0]), str(results))
    else:
        assert {str(results / path) for path in figures if not path.endswith(".csv")} <= set(done.stdout.splitlines())


def test_json_is_one_list_of_the_leaderboards_rows(drsow, tiny_run, tiny_registry, results, tmp_path):
    registry = tmp_path / "registry"
    registry.mkdir()
    models = [entry(name, str(tiny_registry / name.removeprefix("tiny-"))) for name in ("tiny-strong", "tiny-weak")]
    (registry / "models.toml").write_text("".join(models))
    pairs = pair_entry("tiny", "tiny-strong", "tiny-weak") + pair_entry("again", "tiny-strong", "tiny-weak")
    (registry / "pairs.toml").write_text(pairs)
    words = ["--registry", registry, "--pair", "tiny", "--pair", "again", *tiny_run[5:], "--results", results, "--json"]
    done = drsow("run", *words)
    assert (done.returncode, done.stderr) == (0, "")
    rows = json.loads(done.stdout)
    assert [row["pair_id"] for row in rows] == ["tiny", "again"]
    assert all(tuple(row) == columns_of(PLAIN) for row in rows)
    assert rows[0]["score"] == rows[1]["score"] == read_csv(results / FOLDER / "leaderboard.csv")["score"][0]


def test_a_pair_of_one_model_twice_is_refused(drsow, tiny_run, tiny_registry, tmp_path):
    (tmp_path / "models.toml").write_text(entry("same", str(tiny_registry / "strong")))
    (tmp_path / "pairs.toml").write_text(pair_entry("twin", "same", "same"))
    done = drsow("run", "--registry", tmp_path, "--pair", "twin", "--data", tiny_run[6], "--results", tmp_path / "out")
    assert done.returncode == 2
    assert "twin: weak: " in done.stderr


def test_scores_carried_elsewhere_and_back_make_the_same_leaderboard(drsow, tiny_run, finished, tmp_path):
    exported(drsow, finished[0], tiny_run, tmp_path)
    where = ["--registry", tiny_run[2], "--data", tiny_run[6], "--results", tmp_path / "other"]
    for model in ("tiny-strong", "tiny-weak"):
        done = drsow("import", tmp_path / f"{model}.csv", "--model", model, "--template", "tiny-strong", *where)
        assert done.returncode == 0, done.stderr
        assert Path(done.stdout.strip()).parent == tmp_path / "other" / "scores"
    done = drsow("leaderboard", "--pair", "tiny", *where)
    assert done.returncode == 0, done.stderr
    ours, theirs = (read_csv(root / FOLDER / "leaderboard.csv") for root in (tmp_path / "other", finished[0]))
    # Who computed the numbers, and how long its rows were, is not in the file.
    apart = ["strong_revision", "weak_revision", "cost_flop"]
    pd.testing.assert_frame_equal(ours.drop(columns=apart), theirs.drop(columns=apart))
    tables = [root / FOLDER / "accuracy.csv" for root in (tmp_path / "other", finished[0])]
    assert tables[0].read_bytes() == tables[1].read_bytes()


def test_imported_scores_that_are_off_are_told_by_the_plain_passes(drsow, tiny_run, finished, tmp_path):
    words = ["verify", "--registry", tiny_run[2], "--data", tiny_run[6], "--model", "tiny-weak"]
    words += ["--template", "tiny-strong", "--rows", 6, "--device", "cpu", "--format", "csv"]
    right = drsow(*words, "--results", finished[0])
    assert right.returncode == 0, right.stderr
    table = pd.read_csv(io.StringIO(right.stdout))
    assert len(table) == 12 and table["shift_a_token"].abs().max() < 3e-5
    assert "12 of 12 responses compared; " in right.stderr
    assert "0 with another number of tokens; 0 with another number of bytes" in right.stderr
    exported(drsow, finished[0], tiny_run, tmp_path)
    frame = read_csv(tmp_path / "tiny-weak.csv").assign(n_tokens=lambda f: f["n_tokens"] + 1)
    frame["logp_end_nats"] -= 5
    # The sums of some responses are missing, as from an engine whose context was shorter.
    gone = frame["response_id"].eq("rejected") & frame["example_id"].ne(frame["example_id"].iloc[0])
    frame.loc[gone, ["logp_sum_nats", "logp_end_nats"]] = float("nan")
    frame.loc[gone, "status"], frame["n_bytes"] = "too_long", frame["n_bytes"] + 1
    write_csv(tmp_path / "off.csv", frame, tuple(frame.columns))
    where = ["--registry", tiny_run[2], "--data", tiny_run[6], "--results", tmp_path / "off"]
    done = drsow("import", tmp_path / "off.csv", "--model", "tiny-weak", "--template", "tiny-strong", *where)
    assert done.returncode == 0, done.stderr
    off = drsow(*words, "--results", tmp_path / "off")
    both = pd.read_csv(io.StringIO(off.stdout))
    shift = (both["nats"] - both["nats_plain"]).tolist()
    compared = [each for each in shift if not math.isnan(each)]
    assert compared == pytest.approx([-5] * len(compared), abs=1e-3)
    n_gone = 12 - len(compared)
    assert 0 < n_gone < 7
    assert f"{12 - n_gone} of 12 responses compared; {n_gone} are too_long or nonfinite in the store; " in off.stderr
    assert "12 with another number of tokens; 12 with another number of bytes" in off.stderr


def test_show_prints_the_stored_sums(drsow, tiny_run, finished, tmp_path):
    frames = exported(drsow, finished[0], tiny_run, tmp_path)
    words = ["--registry", tiny_run[2], "--pair", "tiny", "--data", tiny_run[6], "--dtype", "fp32"]
    done = drsow("show", *words, "--id", "numbers/6")
    assert done.returncode == 0, done.stderr
    assert "user: Is 7 prime? (6)" in done.stdout
    for response in ("chosen", "rejected"):
        strong, weak = (frames[name].loc["numbers/6", response] for name in ("tiny-strong", "tiny-weak"))
        sums = [row["logp_sum_nats"] + row["logp_end_nats"] for row in (strong, weak)]
        counts = f"{strong['n_tokens']} and {weak['n_tokens']} tokens"
        line = next(line for line in done.stdout.splitlines() if line.startswith(f"{response}: reward "))
        assert line.endswith(counts + ")")
        shown = [float(word.strip("(,;")) for word in line.split() if word.strip("(,;+-").replace(".", "").isdigit()]
        assert shown[:3] == pytest.approx([sums[0] - sums[1], *sums], abs=0.006)


def test_the_reward_of_a_users_own_responses_is_the_stored_difference(drsow, tiny_run, finished, tmp_path):
    frames = exported(drsow, finished[0], tiny_run, tmp_path)
    stored = totals(frames["tiny-strong"]) - totals(frames["tiny-weak"])
    responses = ["yes, the answer is 6", "no\n6 6"]
    rewards = bench.reward("tiny", "Is 7 prime? (6)", responses, dtype="fp32", registry=tiny_run[2])
    assert rewards == pytest.approx([stored["numbers/6", "chosen"], stored["numbers/6", "rejected"]], abs=1e-3)


def test_help_is_quick_to_come(drsow):
    done = drsow("--help", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    assert imported(done.stderr) & {"torch", "transformers", "matplotlib", "seaborn"} == set()
    for verb in ("run", "leaderboard", "figures", "show", "scores", "import", "pairs", "models", "fetch"):
        assert f" {verb} " in done.stdout


def test_the_study_lists_221_pairs_as_csv(drsow):
    done = drsow("pairs", "--study", "paper-221", "--format", "csv")
    assert (done.returncode, done.stderr) == (0, "")
    frame = pd.read_csv(io.StringIO(done.stdout))
    assert list(frame.columns)[:5] == ["pair_id", "strong", "weak", "family", "gap_points"]
    assert len(frame) == 221
    assert frame["family"].str.startswith("llama").sum() == 100


def test_models_are_listed_for_people_and_programs(drsow):
    table, data = drsow("models"), drsow("models", "--format", "json")
    assert (table.returncode, data.returncode) == (0, 0)
    names = [row["model_id"] for row in json.loads(data.stdout)]
    assert len(names) == len(set(names)) >= 44
    # The heading above, what the numbers are below.
    assert len(table.stdout.splitlines()) == len(names) + 2
    assert "nan" not in table.stdout.lower().split()


def test_a_reader_that_stops_reading_is_no_error(tiny_registry):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        done = subprocess.run(
            [COMMAND, "models", "--registry", str(tiny_registry)],
            stdout=gone, stderr=subprocess.PIPE, text=True, env=environment(), check=False,
        )  # fmt: skip
    assert "Traceback" not in done.stderr


def test_nothing_is_written_where_only_the_registry_is_read(drsow, tmp_path):
    drsow("pairs", XDG_CACHE_HOME=str(tmp_path))
    assert leftovers(tmp_path) == []
