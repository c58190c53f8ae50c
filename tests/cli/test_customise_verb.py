"""`drsow route` and `drsow ablate` on the tiny pair, and what they refuse."""

import shutil

import pytest
from commands import leftovers, rows, write_rows

from bench.files import read_csv

DOMAINS = """\
[[domains]]
domain_id = "sums"
description = "sums"
turn = "user"
instruction = "Count."
subsets = ["numbers"]
[[domains.exemplars]]
principle = "Be right."
user = "One and one?"
good = "two"
bad = "three"
explanation = "It is two."
"""


@pytest.fixture
def registry(tiny_registry, tmp_path):
    """The tiny models' registry with a domain that names one of the rows' two subsets."""
    folder = shutil.copytree(tiny_registry, tmp_path / "registry")
    (folder / "domains.toml").write_text(DOMAINS)
    return folder


@pytest.fixture
def words(registry, tmp_path) -> list:
    path = write_rows(tmp_path / "rows.jsonl", rows(8))
    options = ["--dtype", "fp32", "--device", "cpu"]
    return ["ablate", "--registry", registry, "--pair", "tiny", "--data", path, "--router", "section", *options]


@pytest.mark.slow
def test_an_ablation_writes_every_variant_and_scores_nothing_twice(drsow, words, tmp_path):
    results = tmp_path / "results"
    done = drsow(*words, "--results", results)
    assert done.returncode == 0, done.stderr
    folder = results / "tiny" / "rows-ablation"
    table = read_csv(folder / "ablation.csv")
    assert table["variant"].tolist() == ["plain", "instruction", "exemplars", "both", "released"]
    assert table["n_examples"].tolist() == [8] * 5
    # Four rows of "numbers" are known; the others' domain is not, so they are chat and in no row of the table.
    confusion = read_csv(folder / "confusion.csv")
    assert confusion[confusion["known"] == "sums"]["n_examples"].sum() == 4
    assert (folder / "figures/ablation.svg").exists() and (folder / "tables/ablation.md").exists()
    again = drsow(*words, "--results", results)
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert "rows/s" in done.stderr and "rows/s" not in again.stderr


@pytest.mark.slow
def test_rows_of_unknown_sections_are_ablated_without_that_router_unless_it_is_named(drsow, words, tmp_path):
    made = [row | {"subset": ""} for row in rows(4)]
    words[words.index("--data") + 1] = write_rows(tmp_path / "mine.jsonl", made)
    where = words.index("--router")
    plain = words[:where] + words[where + 2 :]
    refused(drsow(*words, "--results", tmp_path / "results"), "mine.jsonl: no domain lists any of its subsets")
    done = drsow(*plain, "--results", tmp_path / "results")
    assert done.returncode == 0, done.stderr
    assert "mine.jsonl: no domain lists any of its subsets, so --router section is left out\n" in done.stderr
    table = read_csv(tmp_path / "results" / "tiny" / "mine-ablation" / "ablation.csv")
    assert table["router"].dropna().unique().tolist() == ["classifier", "model"]
    assert table["routing_difference"].isna().all()


def test_a_route_is_a_line_a_prompt(drsow, registry, tmp_path):
    data, out = (
        write_rows(tmp_path / "rows.jsonl", [{"prompt": "Solve for x: 2x = 4."}, {"prompt": "Hi"}]),
        tmp_path / "r.csv",
    )
    done = drsow("route", "--registry", registry, "--data", data, "--out", out)
    assert done.returncode == 0, done.stderr
    table = read_csv(out)
    assert table["example_id"].astype(str).tolist() == ["0", "1"]
    assert table["domain"][0] == "maths" and table["confidence"].between(0, 1).all()


def refused(done, *said: str) -> None:
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    for words in said:
        assert words in done.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ((DOMAINS[DOMAINS.index("[[domains.ex") :], ""), "domains.toml: sums: exemplars: missing"),
        (('bad = "three"', 'bad = ""'), "domains.toml: sums: exemplars.0.bad: '' is no text: it is blank"),
        (("Be right.", "Be right. " * 700), "domain sums: its longest text has"),
    ],
    ids=["no exemplars", "an empty field", "longer than the context"],
)
def test_a_bad_domain_is_one_line_and_nothing_is_scored(drsow, words, registry, tmp_path, change, said):
    (registry / "domains.toml").write_text(DOMAINS.replace(*change))
    refused(drsow(*words, "--results", tmp_path / "results"), said)
    assert leftovers(tmp_path / "results") == []


def test_data_without_known_subsets_has_no_sections(drsow, tiny_registry, words, tmp_path):
    words[words.index("--registry") + 1] = tiny_registry
    refused(drsow(*words, "--results", tmp_path / "results"), "no domain lists any of its subsets")


def test_a_model_that_the_router_does_not_ask_is_refused(drsow, tiny_registry, tmp_path):
    data = write_rows(tmp_path / "rows.jsonl", rows(2))
    words = ["route", "--registry", tiny_registry, "--data", data, "--out", tmp_path / "r.csv"]
    refused(drsow(*words, "--model", "tiny-strong"), "--model is for --router model; --router classifier asks no")
    assert not (tmp_path / "r.csv").exists()


def test_a_route_replaces_a_route_and_no_other_file(drsow, tiny_registry, tmp_path):
    data, out = write_rows(tmp_path / "rows.jsonl", rows(2)), tmp_path / "r.csv"
    words = ["route", "--registry", tiny_registry, "--data", data, "--out", out]
    assert [drsow(*words).returncode for _ in range(2)] == [0, 0]
    out.write_text("my,notes\n1,2\n")
    refused(drsow(*words), f"{out} exists already, and drsow route did not write it; name another --out")
    assert out.read_text() == "my,notes\n1,2\n"


def test_a_route_is_not_written_over_its_prompts(drsow, tiny_registry, tmp_path):
    data = tmp_path / "rows.csv"
    data.write_text("prompt\nHi\n")
    refused(drsow("route", "--registry", tiny_registry, "--data", data, "--out", data), "is the file that --data reads")
    assert data.read_text() == "prompt\nHi\n"
