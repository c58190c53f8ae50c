"""One table of pairs over all benchmarks: a column per benchmark, ranks, and published rows beside ours."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_benchmarks import JUDGE_BENCH, PLAIN, RM_BENCH, pair, six

from bench.files import read_csv, write_csv, write_json
from bench.lookup import Lookup
from bench.registry import Pair, load_registry
from bench.schema import IMPORTED
from bench.store.folder import NEEDED, Store
from bench.study.across import board
from bench.study.benchmarks import Benchmark
from bench.study.metrics import measured
from bench.study.overview import OVERVIEW, Measured, data_columns, overview
from bench.study.tables import markdown, overview_table
from bench.subject import Subject
from bench.verbs.board import write_board

PAIRS = pd.DataFrame({"pair_id": ["a", "b", "c"], "strong": ["s", "s", "t"], "weak": "w"})
PUBLISHED = {
    "rm-bench": pd.DataFrame(
        {
            "pair_id": ["b", "unknown"],
            "source": "a paper",
            "differs_because": ["8 bit", ""],
            "customised": False,
            "score": [60.0, 50.0],
            "chat": np.nan,
            "hard": [40.0, 10.0],
        }
    ),
}


def table(benchmark: Benchmark, examples: list, pairs: str, rewards: list[list[list[float]]]) -> pd.DataFrame:
    """ACCURACY of some pairs: the rewards of each pair for each example."""
    runs = pd.DataFrame({"pair_id": list(pairs), "reward": "sum"})
    every = [np.array([pair_rewards[i] for pair_rewards in rewards], dtype=float) for i in range(len(examples))]
    return measured(runs, benchmark.judge(examples, every), benchmark.layout(examples))


RM = table(RM_BENCH, [six("chat", 1)], "ab", [[[1, 1, 1, 0, 0, 0]], [[0, 0, 1, 0, 0, 0]]])
JB = table(
    JUDGE_BENCH,
    [pair("livecodebench", str(i)) for i in range(2)],
    "abc",
    [[[1, 0], [0, 1]], [[1, 0]] * 2, [[0, 1]] * 2],
)


def test_a_row_is_a_pair_and_a_column_a_benchmark_with_interval_and_rank():
    frame = overview([Measured("rm-bench", RM), Measured("judge-bench", JB)], PAIRS, {})
    assert tuple(frame.columns[:6]) == OVERVIEW[:6] and frame.columns[-1] == "source"
    assert data_columns(frame) == ["rm_bench", "rm_bench_hard", "judge_bench"]
    # a: 1.0 and 0.5; b: of nine comparisons the three with a marked-up right response, and 1.0; c: only the last, 0.
    assert frame["pair_id"].tolist() == ["a", "b", "c"]
    assert frame["rm_bench"].tolist()[:2] == pytest.approx([1.0, 1 / 3])
    assert frame["rm_bench_hard"].tolist()[:2] == [1.0, 0.0]
    assert frame["judge_bench"].tolist() == [0.5, 1.0, 0.0]
    assert frame["rm_bench_rank"].tolist()[:2] == [1, 2] and pd.isna(frame["rm_bench_rank"].iloc[2])
    assert frame["judge_bench_rank"].tolist() == [2, 1, 3]
    assert frame["mean_rank"].tolist() == [1.5, 1.5, 3.0] and frame["n_ranked"].tolist() == [2, 2, 1]
    assert frame["judge_bench_low"].notna().all()


def test_a_pair_with_rows_left_out_has_no_rank_on_that_benchmark():
    part = table(
        JUDGE_BENCH, [pair("livecodebench", str(i)) for i in range(2)], "ab", [[[1, 0], [np.nan, 1]], [[1, 0]] * 2]
    )
    frame = overview([Measured("judge-bench", part)], PAIRS.iloc[:2], {}).set_index("pair_id")
    assert frame.loc["a", "judge_bench"] == 1.0 and pd.isna(frame.loc["a", "judge_bench_rank"])
    assert (frame.loc["b", "judge_bench_rank"], frame.loc["a", "n_ranked"]) == (1, 0)


def test_published_rows_are_marked_and_have_no_rank():
    frame = overview([Measured("rm-bench", RM)], PAIRS, PUBLISHED)
    assert list(zip(frame["pair_id"], frame["system"], strict=True)) == [
        ("a", "measured"), ("b", "measured"), ("b", "published"), ("c", "measured"),
    ]  # fmt: skip
    row = frame.iloc[2]
    assert (row["rm_bench"], row["rm_bench_hard"]) == (0.6, 0.4)
    assert row["source"] == "a paper; differs because: 8 bit" and pd.isna(row["mean_rank"])


def test_a_pair_that_is_not_measured_is_there_with_its_published_rows():
    frame = overview([], PAIRS.iloc[[1]], PUBLISHED)
    assert frame[["system", "rm_bench", "rm_bench_hard"]].to_numpy().tolist() == [["published", 0.6, 0.4]]


def test_tables_of_other_rows_are_another_column_and_those_of_the_same_rows_one():
    one, other = (JB[JB["pair_id"] == name] for name in "ab")
    apart = overview([Measured("mine", one, "1" * 64), Measured("mine", other, "2" * 64)], PAIRS, {})
    assert data_columns(apart) == ["mine", "mine_22222222"]
    assert apart.set_index("pair_id").loc[["a", "b"], ["mine_rank", "mine_22222222_rank"]].isna().sum().sum() == 2
    same = overview([Measured("mine", one, "1" * 64), Measured("renamed", other, "1" * 64)], PAIRS, {})
    assert data_columns(same) == ["mine"]
    assert same.set_index("pair_id").loc[["a", "b"], "mine_rank"].tolist() == [2, 1]


def test_rows_drawn_of_a_data_set_are_ranked_beside_it_and_not_counted_twice():
    b_first, c_first = JB, JB.assign(accuracy=1 - JB["accuracy"])
    names = {
        "jb": "1",
        "jb-20-per-subset": "2",
        "jb-5-per-subset": "3",
        "other-20-per-subset": "4",
        "other-5-per-subset": "5",
    }
    tables = [Measured(name, b_first if n in "14" else c_first, n * 64) for name, n in names.items()]
    frame = overview(tables, PAIRS, {}).set_index("pair_id")
    assert frame.loc["b", [f"{name.replace('-', '_')}_rank" for name in names]].tolist() == [1, 3, 3, 1, 3]
    assert frame["mean_rank"].to_dict() == {"b": 1.0, "a": 2.0, "c": 3.0} and (frame["n_ranked"] == 2).all()


def test_names_that_give_one_column_or_look_like_a_limit_are_columns_of_their_data():
    names = ["my-data", "my_data", "prefs_high", "prefs", "rm-bench", "rm_bench_hard"]
    tables = [Measured(name, RM if name == "rm-bench" else JB, f"{i}" * 64) for i, name in enumerate(names)]
    frame = overview(tables, PAIRS, {})
    assert frame.columns.is_unique
    found = [*names[:1], "my-data-11111111", "prefs_high", "prefs-33333333", "rm-bench", "rm-bench-hard"]
    assert data_columns(frame) == [*(name.replace("-", "_") for name in found), "rm_bench_hard_55555555"]
    assert (frame["n_ranked"] == [6, 6, 5]).all()


def test_a_published_row_without_a_score_has_the_mean_of_its_sections():
    rows = {"pair_id": ["a"], "source": "p", "differs_because": "", "customised": False, "score": np.nan}
    rows = pd.DataFrame(rows | {"chat": 90.0, "chat-hard": 60.0, "safety": 80.0, "reasoning": 70.0})
    frame = overview([], PAIRS.iloc[[0]], {"reward-bench": rows})
    assert frame["reward_bench"].tolist() == [0.75]
    assert frame["source"].tolist() == ["p (mean of its sections)"]


def test_the_table_in_markdown_has_percent_and_intervals():
    text = markdown(overview_table(overview([Measured("rm-bench", RM)], PAIRS.iloc[:2], PUBLISHED)))
    assert "| Pair | System | Mean rank | rm-bench | rm-bench-hard | Source |" in text
    assert "| b | published | – | 60.0 | 40.0 | a paper; differs because: 8 bit |" in text


KEY = {"model_id": "m", "revision": "r1", "template_digest": "t1", "dtype": "float32", "ops": "cpu-torch"}


def leaderboard_of(*pairs: Pair) -> pd.DataFrame:
    """What the board reads of a leaderboard: the pairs, and the reward."""
    rows = [{"pair_id": each.pair_id, "strong": each.strong, "weak": each.weak, "reward": "sum"} for each in pairs]
    return pd.DataFrame(rows).reindex(columns=list(NEEDED["leaderboard.csv"]), fill_value="")


BOARD = leaderboard_of(load_registry().pair("mistral-7b"))


def study_of(folder: Path, ids: str, *keys: dict, data: str = "jb") -> Subject:
    """A study of pairs of JB whose tables are stored; each score set in their manifest has some other fields."""
    pairs = tuple(Pair(name, f"{name}-strong", "w", "", "o", float("nan")) for name in ids)
    where = folder / f"study-{ids}" / data
    write_csv(where / "accuracy.csv", JB[JB["pair_id"].isin(list(ids))], tuple(JB.columns))
    write_csv(where / "leaderboard.csv", board_rows := leaderboard_of(*pairs), tuple(board_rows))
    sets = [{"key": KEY | key, "info": {"template": "o"}} for key in keys]
    write_json(where / "manifest.json", {"data": data, "data_digest": "1" * 64, "score_sets": sets})
    return Subject(where.parent.name, pairs)


def test_the_board_takes_the_stored_tables_of_every_benchmark_and_writes_its_own(tmp_path):
    store, known = Store(tmp_path), load_registry()
    folders = {"rm_bench_chat": RM, "judge-bench": JB, "mine": table(PLAIN, [pair("x", "1")], "a", [[[1, 0]]])}
    for name, rows in folders.items():
        rows = rows[rows["pair_id"] == "a"].assign(pair_id="mistral-7b")
        write_csv(tmp_path / "mistral-7b" / name / "accuracy.csv", rows, tuple(rows.columns))
        write_csv(tmp_path / "mistral-7b" / name / "leaderboard.csv", BOARD, tuple(BOARD))
        write_json(tmp_path / "mistral-7b" / name / "manifest.json", {"subject": "mistral-7b", "variant": ""})
    write_json(tmp_path / "mistral-7b" / "mine" / "manifest.json", {"subject": "mistral-7b", "variant": "native"})
    frame = board(store, known, [Subject("mistral-7b", (known.pair("mistral-7b"),))], reward="sum")
    assert data_columns(frame) == [
        "judge_bench",
        "rm_bench_chat",
        "rm_bench_chat_hard",
        "reward_bench",
        "rm_bench",
        "rm_bench_hard",
    ]
    assert frame["system"].tolist() == ["measured", "published", "published", "published"]
    paths = write_board(frame, tmp_path / "mistral-7b")
    assert [path.name for path in paths] == ["board.csv", "board.md"]
    again = read_csv(paths[0])
    assert again["rm_bench_chat"].tolist()[0] == 1.0 and again["source"].tolist()[0] == ""


def test_the_board_takes_the_folder_named_after_its_data_before_a_copy_and_none_without_a_manifest(tmp_path, capsys):
    known, folder = load_registry(), tmp_path / "mistral-7b"
    facts = {"data": "judge-bench", "subject": "mistral-7b", "data_digest": "1" * 64}
    for name, right in (("before", 0.0), ("judge-bench-5-per-subset", 1.0), ("unknown", 0.5)):
        rows = JB[JB["pair_id"] == "a"].assign(pair_id="mistral-7b", accuracy=right)
        write_csv(folder / name / "accuracy.csv", rows, tuple(rows.columns))
        write_csv(folder / name / "leaderboard.csv", BOARD, tuple(BOARD))
        write_json(folder / name / "manifest.json", facts)
    (folder / "unknown" / "manifest.json").write_text("")
    frame = board(Store(tmp_path), known, [Subject("mistral-7b", (known.pair("mistral-7b"),))], reward="sum")
    assert frame["judge_bench_5_per_subset"].tolist()[0] == 1.0
    assert data_columns(frame)[0] == "judge_bench_5_per_subset"
    assert f"left out of the board: {folder / 'unknown'} has no readable manifest.json" in capsys.readouterr().err


def test_ranks_on_the_board_are_among_the_pairs_that_it_shows(tmp_path):
    study, known = study_of(tmp_path, "abc"), load_registry()
    a, b, c = study.pairs
    frame = board(Store(tmp_path), known, [study._replace(pairs=(a, c))], reward="sum").set_index("pair_id")
    assert frame["mean_rank"].to_dict() == {"a": 1.0, "c": 2.0}
    # b is another pair of models than the one that was scored
    frame = board(Store(tmp_path), known, [study._replace(pairs=(a, b._replace(weak="x"), c))], reward="sum")
    assert frame["pair_id"].tolist() == ["a", "c", "b"] and frame["n_ranked"].tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("now", "left_out"),
    [
        (Lookup(), False),
        (Lookup(revision_of=lambda _: "r1", template_of=lambda _: "t1"), False),
        (Lookup(revision_of=lambda _: "r2"), True),
        (Lookup(template_of=lambda _: "t2"), True),
    ],
    ids=["models elsewhere", "the same", "other files", "another template"],
)
def test_the_board_leaves_out_tables_of_earlier_scores(tmp_path, capsys, now, left_out):
    study = study_of(tmp_path, "ab", {})
    frame = board(Store(tmp_path), load_registry(), [study], reward="sum", lookup=now)
    assert (data_columns(frame) == []) == left_out
    assert ("its tables are of earlier scores of m; `drsow leaderboard`" in capsys.readouterr().err) == left_out


def test_the_board_warns_of_pairs_that_were_scored_in_different_ways(tmp_path, capsys):
    store, known = Store(tmp_path), load_registry()
    same = [study_of(tmp_path, ids, {}, {"ops": IMPORTED}) for ids in "ab"]
    board(store, known, same, reward="sum")
    assert capsys.readouterr().err == ""
    board(store, known, [*same, study_of(tmp_path, "c", {"dtype": "bfloat16"})], reward="sum")
    assert "warning: jb: its pairs were scored in different ways (float32 by cpu-torch; bfloat16 by cpu-torch), so" in (
        capsys.readouterr().err
    )
