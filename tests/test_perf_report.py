"""What `make perf` says of its runs."""

import json
import re

import pytest
from perf import report

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
