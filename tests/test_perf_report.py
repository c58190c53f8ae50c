"""What `make perf` says of its runs."""

import json
import re

import pandas as pd
import pytest
from matplotlib.colors import to_hex
from perf import kinds, report, small
from perf.bars import Measured, bars
from perf.figures import scorer_times
from perf.scorers import LM_EVAL, OURS

from bench.schema import UsageError


@pytest.fixture(autouse=True)
def without_the_peers(monkeypatch):
    monkeypatch.setattr(report, "PACKAGES", ("torch", "transformers"))


def test_each_part_keeps_the_time_at_which_its_own_run_began(tmp_path, monkeypatch):
    clock = iter(["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"])
    monkeypatch.setattr(report.time, "strftime", lambda *_: next(clock))
    report.begin(tmp_path, ["plain", "scaling"])
    report.begin(tmp_path, ["scaling"])
    report.write(tmp_path)
    said = (tmp_path / "README.md").read_text()
    assert "Begun: plain: 2026-01-01T00:00:00Z; scaling: 2026-01-02T00:00:00Z." in said


def test_parts_of_two_machines_do_not_stand_in_one_folder(tmp_path):
    report.begin(tmp_path, ["plain"])
    path = tmp_path / report.MANIFEST
    before = json.loads(path.read_text()) | {"processor": "another"}
    path.write_text(json.dumps(before))
    with pytest.raises(UsageError, match=re.escape(str(path)) + ".*plain.*--out"):
        report.begin(tmp_path, ["scaling"])
    assert json.loads(path.read_text()) == before
    report.begin(tmp_path, ["plain"])
    assert json.loads(path.read_text())["processor"] != "another"


@pytest.mark.parametrize(("said", "maker"), [("AuthenticAMD", "amd"), ("GenuineIntel", "intel"), ("ARM", "other")])
def test_a_kind_of_processor_is_its_maker_and_what_multiplies_bfloat16(tmp_path, monkeypatch, said, maker):
    monkeypatch.setattr(kinds, "CPUINFO", tmp_path / "cpuinfo")
    kinds.CPUINFO.write_text(f"processor : 0\nvendor_id\t: {said}\nmodel name\t: One\n")
    assert re.fullmatch(rf"{maker}-(amx|avx512bf16|avx512|avx2|default)", kinds.kind())


def test_the_page_of_kinds_has_a_row_for_each_folder_with_its_date_and_bars(tmp_path):
    for name, processor in (("amd-one", "AMD One"), ("intel-two", "Intel Two")):
        (tmp_path / name).mkdir()
        began = {"plain": "2026-01-02T00:00:00Z", "scaling": "2026-01-01T00:00:00Z"}
        ran = {"processor": processor, "cores": 2, "began_utc": began}
        (tmp_path / name / report.MANIFEST).write_text(json.dumps(ran))
    found = pd.DataFrame({"bar": ["plain, bf16: times faster than lm-eval"], "measured": [2.345]})
    found.to_csv(tmp_path / "amd-one" / "bars.csv", index=False)
    kinds.write_index(tmp_path)
    rows = [line for line in (tmp_path / "README.md").read_text().splitlines() if line.startswith("| [")]
    assert rows == [
        "| [amd-one](amd-one/README.md) | AMD One, 2 cores | 2026-01-02 |  | 2.35 |  |  |  |",
        "| [intel-two](intel-two/README.md) | Intel Two, 2 cores | 2026-01-02 |  |  |  |  |  |",
    ]


def costs(*rows: tuple) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(small.SMALL))


def test_small_work_beside_another_commit_is_a_ratio_of_the_same_round():
    rows = [
        ("drsow pairs", "this", 1, 1.0, 1.0), ("drsow pairs", "HEAD~1", 1, 1.0, 4.0),
        ("drsow pairs", "this", 2, 3.0, 9.0), ("drsow pairs", "HEAD~1", 2, 1.0, 5.0),
        ("drsow pairs", "this", 3, 2.0, 5.0), ("drsow pairs", "HEAD~1", 3, 1.0, 10.0),
    ]  # fmt: skip
    # The ratios of the rounds are 0.25, 1.8 and 0.5. The medians of the seconds are equal.
    head, line = small.table(costs(*rows)).splitlines()
    assert head.split() == ["task", "wall", "s", "CPU", "s", "HEAD~1:", "CPU", "s", "ratio"]
    assert line.split() == ["drsow", "pairs", "2.00", "5.00", "5.00", "0.50"]


def test_the_bars_of_small_work_are_seconds_by_the_clock():
    rows = [("drsow pairs", "this", turn, wall_s, 9.0) for turn, wall_s in ((1, 0.8), (2, 5.0), (3, 0.9))]
    found = bars(
        Measured(*(costs(*rows) if name == "small" else pd.DataFrame() for name in Measured._fields)), tiles=False
    )
    assert found.to_dict("records") == [{"bar": "drsow pairs: seconds", "measured": 0.9, "needed": "<= 1", "met": True}]


@pytest.mark.parametrize(("tiles", "met"), [(False, [True, True, False]), (True, [False, False, False])])
def test_a_processor_with_amx_has_bars_of_its_own(tiles, met):
    # Mean seconds 10 and 25: 2.5 times faster. With scores of tokens 10.6 seconds for 10.
    runs = [
        ("drsow", "plain", 9.0, 0.5), ("drsow", "plain", 11.0, 0.5), ("lm-eval", "plain", 25.0, 0.2),
        ("drsow", "tokens", 10.0, 0.5), ("drsow --tokens", "tokens", 10.6, 0.5),
    ]  # fmt: skip
    perf = pd.DataFrame(runs, columns=["scorer", "workload", "wall_s", "share_of_matmul_rate"])
    perf = perf.assign(dtype="bf16", unique_tokens=100, computed_tokens=101)
    found = bars(Measured(perf, *[pd.DataFrame()] * (len(Measured._fields) - 1)), tiles=tiles).set_index("bar")
    names = ("plain, bf16: times faster than lm-eval", "plain, bf16: share of the matmul rate")
    names += ("bf16: time with --tokens over time without",)
    assert found.loc[list(names), "measured"].tolist() == [2.5, 0.5, 1.06]
    assert found.loc[list(names), "met"].tolist() == met


def test_every_task_has_a_number_of_seconds_that_it_needs(tmp_path):
    class Recorded(small.Code):
        def python(self, *words):
            return "[1, 2]\n[3, 4]\n", (1.0, 2.0)

    code = Recorded("this", tmp_path, tmp_path)
    named = [name for task in small._tasks(tmp_path / "rows.jsonl") for name, _ in task(code)]
    assert [name for name in named if name not in (small.AGAIN, small.SAMPLE)] == list(small.NEEDED_S)


def test_prompts_a_minute_are_those_of_the_median_round():
    rows = [(small.SAMPLE, "this", turn, wall_s, 1.0) for turn, wall_s in ((1, 20.0), (2, 60.0), (3, 30.0))]
    # 16 prompts in half a minute.
    assert "\n32 prompts per minute" in small.table(costs(*rows))


def test_a_commit_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(UsageError, match="--against no-such-commit: "):
        small._checked_out("no-such-commit", tmp_path)


@pytest.mark.parametrize("first", [LM_EVAL, OURS])
def test_a_scorer_has_one_colour_whichever_ran_first(first):
    runs = pd.DataFrame({"scorer": [first, *{LM_EVAL, OURS} - {first}]}).assign(
        workload="plain", dtype="bf16", rows=1, round=0, wall_s=1.0
    )
    (axes,) = scorer_times(runs).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    colours = {name: to_hex(bar.get_facecolor()) for name, bar in zip(names, axes.patches, strict=True)}
    assert colours == {OURS: "#0072b2", LM_EVAL: "#009e73"}
