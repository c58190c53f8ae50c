"""What is refused of another engine's scores, each with its row and field, and a study's folder of them."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from tiny_models import entry, pair_entry

from bench.files import csv_bytes
from bench.registry import load_registry
from bench.schema import SCORES, Dataset, Example, Message, UsageError
from bench.store.folder import Store
from bench.store.imported import check_imported
from bench.subject import Subject
from bench.verbs.exchange import import_folder, import_scores

RESPONSES = (("chosen", "the answer is yes"), ("rejected", "no"))
DATA = Dataset("rows", "rows", "d", tuple(Example(str(i), "", (Message("user", "Hi"),), RESPONSES) for i in range(3)))


def scores() -> pd.DataFrame:
    rows = [(str(i), name, -9.5, -0.5, 5, len(text), "ok") for i in range(3) for name, text in RESPONSES]
    return pd.DataFrame(rows, columns=list(SCORES))


def changed(column: str, value: object) -> pd.DataFrame:
    """Row 3, the chosen response of example 1, with another value."""
    frame = scores().astype({column: object})
    frame.loc[2, column] = value
    return frame


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("logp_sum_nats", 9.5, "is above 0"),
        ("logp_sum_nats", 0.01, "is above 0"),
        ("logp_end_nats", 0.5, "is above 0"),
        ("logp_sum_nats", 0.0, "is 0 over several tokens"),
        ("logp_sum_nats", float("nan"), "is no finite log-probability, and the status is ok"),
        ("logp_end_nats", float("-inf"), "is no finite log-probability, and the status is ok"),
        ("logp_sum_nats", "low", "is no finite log-probability, and the status is ok"),
        ("n_tokens", 0, "is less than 1"),
        ("n_tokens", -4, "is less than 1"),
        ("n_tokens", 2.5, "is no count"),
        ("n_tokens", None, "is no count"),
        ("n_tokens", 17 + 9, "is more than the response has bytes"),
        ("n_bytes", 0, "is less than 1"),
        ("n_bytes", 10**9, "is out of all proportion"),
        ("status", "fine", "is an unknown status"),
        ("status", None, "is missing, or no text"),
        ("status", "too_long", "is given although the status is not ok"),
        ("response_id", "rejected", "is stored twice"),
        ("example_id", 1, "is missing, or no text"),
    ],
)
def test_what_no_log_probability_can_be_is_refused_with_row_and_field(column, value, words):
    with pytest.raises(ValueError) as error:
        check_imported(changed(column, value), DATA)
    shown = "logp_sum_nats" if value == "too_long" else column
    assert str(error.value).startswith("row ") and f"field {shown}: " in str(error.value)
    assert words in str(error.value)


def test_bytes_for_which_there_are_too_few_tokens_are_refused():
    with pytest.raises(ValueError, match=r"row 3 \(1, chosen\), field n_tokens: 5 is too few"):
        check_imported(changed("n_bytes", 5 * 256 + 1), DATA)


def test_a_row_too_many_or_too_few_is_refused():
    with pytest.raises(ValueError, match=r"^2, rejected: no row \(1 are missing\)$"):
        check_imported(scores().iloc[:-1], DATA)
    extra = pd.concat([scores(), scores().iloc[:1].assign(example_id="7")], ignore_index=True)
    with pytest.raises(ValueError, match=r"row 7 \(7, chosen\), field example_id"):
        check_imported(extra, DATA)


@pytest.mark.parametrize(
    "more",
    [
        {"logp_sum_nats": 0.0, "n_tokens": 3},
        {"n_bytes": [10, 2] * 3},
        {"n_bytes": [256 * 5, 2] * 3},
        {"n_tokens": [5, 2 + 8] * 3},
    ],
    ids=["three tokens that are sure", "a shortened text", "runs of spaces", "tokens without bytes"],
)
def test_a_row_that_is_only_just_possible_is_taken(more):
    check_imported(scores().assign(**more), DATA)


def test_what_rounding_and_whole_floats_make_is_taken():
    frame = scores().assign(logp_end_nats=1e-7).astype({"n_tokens": "float64"})
    frame = frame.assign(status=["ok"] * 5 + ["too_long"])
    frame.loc[5, ["logp_sum_nats", "logp_end_nats"]] = float("nan")
    assert check_imported(frame, DATA)["n_tokens"].dtype == "int64"


@pytest.fixture
def study(tiny_registry, tmp_path) -> tuple:
    """A registry of four models, two of each template, their study, and a folder with a file for each."""
    registry = tmp_path / "registry"
    registry.mkdir()
    names = ("a1", "a2", "b1", "b2")
    score = 'scores.alpaca_eval_2_lc = { value = 1.0, source = "drawn" }\n'
    models = [entry(name, str(tiny_registry / ("strong" if name[0] == "a" else "weak"))).rstrip() for name in names]
    text = "\n".join(f"{model}\n{score}" for model in models)
    text = text.replace(f'{{ folder = "{tiny_registry / "weak"}" }}', '{ repo = "org/Model-B2" }')
    (registry / "models.toml").write_text(text.replace('"org/Model-B2"', '"org/Model-B1"', 1))
    families = "".join(
        f'[[families]]\nfamily_id = "{f}"\ntemplate = "{f}1"\nmembers = ["{f}1", "{f}2"]\n' for f in ("a", "b")
    )
    named = '[[studies]]\nstudy_id = "four"\nfamilies = ["a", "b"]\nperformance = "alpaca_eval_2_lc"\n'
    (registry / "pairs.toml").write_text(families + named + pair_entry("tiny", "a1", "a2"))
    known = load_registry(registry)
    subject = Subject("four", tuple(known.study_pairs(known.study("four"))), axes=("alpaca_eval_2_lc",))
    folder = tmp_path / "scores"
    folder.mkdir()
    for stem in ("a1", "a2", "b1", "org__Model-B2"):
        scores().to_csv(folder / f"{stem}.csv", index=False)
    return known, subject, folder


def test_a_folder_is_imported_a_file_a_model_under_its_familys_template(study, tmp_path):
    known, subject, folder = study
    store = Store(tmp_path / "results")
    assert len(import_folder(store, folder, subject, known, DATA, dtype="bf16")) == 4
    found = {s.key.model_id: (s.info()["template"], s.key.dtype) for s in store.find()}
    assert found == {name: (f"{name[0]}1", "bfloat16") for name in ("a1", "a2", "b1", "b2")}


def test_files_and_models_that_do_not_fit_are_named_and_nothing_is_stored(study, tmp_path):
    known, subject, folder = study
    shutil.copy(folder / "a1.csv", folder / "stranger.csv")
    shutil.copy(folder / "b1.csv", folder / "org__Model-B1.csv")
    (folder / "a2.csv").unlink()
    with pytest.raises(UsageError) as error:
        import_folder(Store(tmp_path / "results"), folder, subject, known, DATA, dtype="fp32")
    assert str(error.value) == (
        f"{folder}: its files do not match four, so nothing is stored: files that fit no model: stranger.csv; "
        "models without a file: a2; models with several files: b1"
    )
    assert not (tmp_path / "results").exists()


def test_a_file_named_after_a_repository_of_two_models_is_the_scores_of_neither(study, tmp_path):
    known, subject, folder = study
    known.models["b1"] = known.model("b1").model_copy(update={"source": known.model("b2").source})
    (folder / "b1.csv").unlink()
    with pytest.raises(UsageError, match=r"stored: files that fit several models, to be named by model_id: org__Model"):
        import_folder(Store(tmp_path / "results"), folder, subject, known, DATA, dtype="fp32")
    assert not (tmp_path / "results").exists()


def test_one_bad_file_of_a_folder_stores_none(study, tmp_path):
    known, subject, folder = study
    changed("n_tokens", 0).to_csv(folder / "org__Model-B2.csv", index=False)
    with pytest.raises(UsageError, match=r"org__Model-B2\.csv: row 3 \(1, chosen\), field n_tokens: 0 is less than 1"):
        import_folder(Store(tmp_path / "results"), folder, subject, known, DATA, dtype="fp32")
    assert not (tmp_path / "results").exists()


def test_one_file_under_two_templates_is_two_sets(study, tmp_path):
    store, file = Store(tmp_path / "results"), study[2] / "a1.csv"
    folders: list[Path] = [import_scores(store, file, "a1", owner, DATA, dtype="fp32") for owner in ("a1", "b1")]
    assert len(set(folders)) == 2
    assert sorted(s.info()["template"] for s in store.find(model_id="a1")) == ["a1", "b1"]


@pytest.mark.parametrize(
    "written", [lambda frame: frame.to_csv(index=False).encode(), csv_bytes], ids=["pandas", "drsow"]
)
def test_an_id_that_begins_with_an_apostrophe_is_found_in_a_csv_of_any_writer(tmp_path, written):
    ids = ("'q", "=q", "''q")
    data = DATA._replace(examples=tuple(e._replace(example_id=i) for i, e in zip(ids, DATA.examples, strict=True)))
    frame = scores().assign(example_id=[name for name in ids for _ in RESPONSES])
    (tmp_path / "m.csv").write_bytes(written(frame))
    store = Store(tmp_path / "results")
    import_scores(store, tmp_path / "m.csv", "m", "m", data, dtype="fp32")
    assert set(store.find()[0].read()["example_id"]) == set(ids)
