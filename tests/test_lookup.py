"""Which stored score sets a pair or study is made of, and what is said where none or several fit."""

from pathlib import Path

import pandas as pd
import pytest

from bench.current import check_tables, outdated_model
from bench.lookup import Lookup, one_set, stored_sets
from bench.registry import Pair, load_registry
from bench.schema import (
    IMPORTED,
    SCHEMA_VERSION,
    SCORES,
    Dataset,
    Example,
    Message,
    PreconditionError,
    ScoreKey,
    UsageError,
)
from bench.store.folder import ScoreSet, Store
from bench.store.places import stored_manifest
from bench.subject import Subject, by_model

ROWS = (Example("1", "", (Message("user", "Hi"),), (("chosen", "yes"), ("rejected", "no"))),)
DATA = Dataset("rows.jsonl", "rows", "d1", ROWS)
PAIR = Pair("two", "strong", "weak", "", "owner", float("nan"))
SUBJECT = Subject("two", (PAIR,))
SCORED = pd.DataFrame([("1", name, -2.0, -0.5, 2, 3, "ok") for name in ("chosen", "rejected")], columns=list(SCORES))
DTYPES = {"bf16": "bfloat16", "fp32": "float32"}


def stored(store: Store, model_id: str, **changes: str) -> ScoreSet:
    """A complete set; "template", "data" and the fields of the key may be given."""
    names = {"template": changes.pop("template", "owner"), "data": changes.pop("data", "rows")}
    key = ScoreKey(
        model_id=model_id, revision="r1", template_digest=f"text of {names['template']}", domain="", domain_digest="",
        data_digest="d1", dtype="float32", ops="cpu-torch", attention="a", span="s", schema_version=SCHEMA_VERSION,
    )  # fmt: skip
    score_set = store.score_set(key._replace(**changes))
    score_set.begin(1, {}, names)
    score_set.write_part(0, SCORED)
    score_set.finish({})
    return score_set


def imported(store: Store, model_id: str, **changes: str) -> ScoreSet:
    owner = changes.get("template", "owner")
    return stored(store, model_id, **{"ops": IMPORTED, "template_digest": f"imported:{owner}"} | changes)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path)


def kinds(sets: dict) -> list[tuple[str, str]]:
    return [(s.key.dtype, s.key.ops) for s in sets.values()]


def test_a_set_is_found_under_whatever_name_its_rows_and_template_have(store):
    for model_id in ("strong", "weak"):
        stored(store, model_id, template="twin", data="a copy")
    same = Lookup(template_of={"owner": "text of twin", "twin": "text of twin"}.get)
    assert len(stored_sets(store, SUBJECT, DATA, same)) == 2
    # Where the owner's files are not here, its name is all there is.
    with pytest.raises(PreconditionError, match="strong is not scored on rows under the chat template"):
        stored_sets(store, SUBJECT, DATA)


def test_a_set_of_another_text_under_the_owners_name_is_none(store):
    for model_id in ("strong", "weak"):
        stored(store, model_id)
    with pytest.raises(PreconditionError):
        stored_sets(store, SUBJECT, DATA, Lookup(template_of={"owner": "its text of today"}.get))


def test_one_kind_that_all_passes_have_is_preferred(store, capsys):
    for model_id in ("strong", "weak"):
        stored(store, model_id)
    stored(store, "weak", dtype="bfloat16", ops="cpu-onednn-amx")
    assert kinds(stored_sets(store, SUBJECT, DATA)) == [("float32", "cpu-torch")] * 2
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"dtype": "bfloat16"}, ("--dtype fp32 (float32 by cpu-torch)", "--dtype bf16 (bfloat16 by cpu-torch)")),
        ({"ops": "cuda-tiles"}, ("--dtype fp32 --ops cpu-torch", "--dtype fp32 --ops cuda-tiles")),
    ],
)
def test_of_two_kinds_that_cover_all_the_message_names_the_option_that_picks(store, other, said):
    for model_id in ("strong", "weak"):
        stored(store, model_id)
        stored(store, model_id, **other)
    with pytest.raises(UsageError) as error:
        stored_sets(store, SUBJECT, DATA)
    assert all(words in str(error.value) for words in said)
    assert kinds(stored_sets(store, SUBJECT, DATA, Lookup("float32", "cpu-torch"))) == [("float32", "cpu-torch")] * 2


def test_a_mix_is_taken_where_nothing_else_is_and_named_in_one_line(store, capsys):
    stored(store, "strong", dtype="bfloat16", ops="cuda-flex")
    stored(store, "weak")
    assert len(set(kinds(stored_sets(store, SUBJECT, DATA)))) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and line.startswith("warning: two: ")
    assert "bfloat16 by cuda-flex: strong" in line and "float32 by cpu-torch: weak" in line
    command = f"`drsow run --pair two --data rows.jsonl --limit-per-subset 5 --results {store.root}` on one machine"
    stored_sets(store, SUBJECT, DATA._replace(limit=5))
    assert command in capsys.readouterr().err
    # A server's arithmetic is its own: no run makes it that of the other model.
    stored(store, "third", ops="vllm-1", attention="vllm")
    stored_sets(store, Subject("two", (PAIR._replace(weak="third"),)), DATA)
    assert "different ways" in (line := capsys.readouterr().err) and "drsow run" not in line


def test_an_import_stands_beside_any_kind_without_a_word(store, capsys):
    stored(store, "strong", dtype="bfloat16", ops="cuda-flex")
    stored(store, "strong", ops="cpu-torch")
    imported(store, "weak")
    with pytest.raises(UsageError, match=r"--dtype bf16 .* --dtype fp32"):
        stored_sets(store, SUBJECT, DATA)
    found = stored_sets(store, SUBJECT, DATA, Lookup(ops=None, dtype="float32"))
    assert kinds(found) == [("float32", "cpu-torch"), ("float32", IMPORTED)]
    assert capsys.readouterr().err == ""


def test_two_revisions_of_one_kind_are_asked_about_by_folder(store):
    sets = [stored(store, "strong"), stored(store, "strong", revision="r2")]
    stored(store, "weak")
    with pytest.raises(UsageError, match="delete all but one") as error:
        stored_sets(store, SUBJECT, DATA)
    assert all(str(each.folder) in str(error.value) for each in sets)


def test_what_is_missing_says_what_there_is_and_the_command_that_mends_it(store):
    imported(store, "strong", template="strong")
    with pytest.raises(PreconditionError) as error:
        stored_sets(store, SUBJECT, DATA._replace(limit=5))
    assert str(error.value) == (
        "strong is not scored on rows under the chat template of owner; there is one under strong in float32 by "
        "imported; `drsow import FILE --model strong --template owner --data rows.jsonl --limit-per-subset 5 "
        f"--results {store.root}` stores it"
    )
    changed = Lookup(template_of={"owner": "its text of today", "strong": "that of strong"}.get)
    stored(store, "weak")
    with pytest.raises(PreconditionError, match="there is one under another text of owner's template in float32"):
        stored_sets(store, Subject("two", (PAIR._replace(strong="weak"),)), DATA, changed)
    stored(store, "strong", data_digest="d2", data="others")
    with pytest.raises(PreconditionError) as error:
        stored_sets(Store(store.root), Subject("two", (PAIR,), native=True), DATA._replace(digest="d3"))
    assert "on other rows (others)" in str(error.value)


def test_sets_of_an_older_version_are_named_in_one_line(store, capsys):
    for model_id in ("strong", "weak", "third"):
        stored(store, model_id, schema_version=1)
    for _ in range(2):
        with pytest.raises(PreconditionError):
            stored_sets(store, SUBJECT, DATA)
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "3 score sets of another version" in line and "`drsow run`" in line


def test_one_models_set_is_chosen_by_template(store):
    stored(store, "strong")
    stored(store, "strong", template="strong")
    with pytest.raises(UsageError, match="choose with --template owner or --template strong"):
        one_set(store, DATA, Lookup(), "strong", None)
    assert one_set(store, DATA, Lookup(), "strong", "strong").info()["template"] == "strong"
    with pytest.raises(PreconditionError, match="there is one under owner in float32 by cpu-torch, one under strong"):
        one_set(store, DATA, Lookup(), "strong", "weak")
    with pytest.raises(PreconditionError, match=r"; choose with --template owner$"):
        one_set(store, DATA, Lookup(), "strong", "weak")
    with pytest.raises(PreconditionError, match=r"; `drsow run` or `drsow import` stores it$"):
        one_set(store, DATA._replace(digest="d9"), Lookup(), "strong", "weak")


def test_a_model_under_two_templates_is_refused(store):
    sets = {("m", owner): stored(store, "m", template=owner) for owner in ("a", "b")}
    with pytest.raises(UsageError, match="m is scored under the chat templates of a and of b"):
        by_model(sets)
    assert list(by_model({("m", "a"): sets["m", "a"], ("m", "a's twin"): sets["m", "a"]})) == ["m"]


def test_tables_of_an_import_that_was_replaced_are_outdated(store):
    there = imported(store, "strong", revision="r1").key._asdict()
    tables = {"score_sets": [{"key": there, "info": {"template": "owner"}}]}
    assert outdated_model(tables, store, Lookup(revision_of=lambda _: "other files")) == ""
    tables["score_sets"][0]["key"] = there | {"revision": "r0"}
    assert outdated_model(tables, store, Lookup()) == "strong"


def test_the_committed_tables_are_of_the_registry(store):
    results = Path(__file__).parents[1] / "results"
    known, folders = load_registry(results / "ladders" / "registry"), sorted(results.rglob("manifest.json"))
    folders = [path.parent for path in folders if (path.parent / "leaderboard.csv").is_file()]
    assert len(folders) > 20
    for folder in folders:
        name = stored_manifest(folder)["subject"]
        pairs = known.study_pairs(known.study(name)) if name in known.studies else [known.pair(name)]
        axes = (known.study(name).performance,) if name in known.studies else ()
        check_tables(folder, store, Subject(name, tuple(pairs), axes=axes), DATA, Lookup(), reward="sum")
    other = Subject("noise", tuple(known.study_pairs(known.study("noise"))), axes=("ifeval",))
    with pytest.raises(PreconditionError, match=r"tables were made \(ifeval\); `drsow leaderboard --study noise "):
        check_tables(results / "noise" / "sample", store, other, DATA, Lookup(), reward="sum")
