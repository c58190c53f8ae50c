"""From stored scores to the tables of a results folder: whose rows they are of, and a folder that cannot be written."""

import json
import shutil

import pandas as pd
import pytest
from tiny_models import entry, pair_entry

from bench.cli.boards import show_boards
from bench.cli.run import figures, leaderboard
from bench.current import check_tables
from bench.data.load import load_data
from bench.files import read_csv
from bench.lookup import Lookup
from bench.registry import load_registry
from bench.schema import SCORES, PreconditionError, UsageError
from bench.store.folder import Store
from bench.store.places import stored_manifest
from bench.study.draw import write_figures, write_tables
from bench.study.report import gather, html
from bench.subject import Subject, result_folder
from bench.verbs.exchange import export_scores, import_scores
from bench.verbs.run import compared_pairs, draw, figures_are_older, redo_subjects
from bench.verbs.told import lookup_of

SCORE = 'scores.alpaca_eval_2_lc = { value = 1.0, source = "drawn" }\n'
PROMPTS = ("Is 7 prime?", "Name a colour.", "Two and two?")


def write_rows(path, *, turned: bool = False):
    labels = ("rejected", "chosen") if turned else ("chosen", "rejected")
    rows = [{"id": i, "prompt": p, labels[0]: "the answer is yes", labels[1]: "no"} for i, p in enumerate(PROMPTS)]
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_data(str(path))


def scores(better: float) -> pd.DataFrame:
    rows = [
        (str(i), name, -9.0 + better * (name == "chosen"), -0.5, 5, size + i * (name == "chosen"), "ok")
        for i in range(3)
        for name, size in (("chosen", 17), ("rejected", 2))
    ]
    return pd.DataFrame(rows, columns=list(SCORES))


@pytest.fixture
def known(tmp_path):
    """A registry of three models whose files are nowhere, a pair and a study of them."""
    folder = tmp_path / "registry"
    folder.mkdir()
    (folder / "models.toml").write_text("".join(f"{entry(n, 'nowhere').rstrip()}\n{SCORE}\n" for n in ("s", "w", "x")))
    family = '[[families]]\nfamily_id = "f"\ntemplate = "s"\nmembers = ["s", "w"]\n'
    study = '[[studies]]\nstudy_id = "all"\nfamilies = ["f"]\nperformance = "alpaca_eval_2_lc"\n'
    other = pair_entry("other", "x", "w").rstrip() + "\n"
    (folder / "pairs.toml").write_text(family + study + pair_entry("two", "s", "w") + other)
    return load_registry(folder)


@pytest.fixture
def scored(known, tmp_path):
    """A store with both models' scores on base.jsonl, of which the strong one gets every row right."""
    store, data = Store(tmp_path / "results"), write_rows(tmp_path / "base.jsonl")
    for name, better in (("s", 4.0), ("w", 0.0)):
        file = tmp_path / f"{name}.csv"
        scores(better).to_csv(file, index=False)
        import_scores(store, file, name, "s", data, dtype="fp32")
    return store, data


@pytest.fixture
def two(known):
    return Subject("two", (known.pair("two"),))


def test_the_gap_of_a_studys_pair_is_named_after_the_studys_performance(scored, known, capsys):
    store, data = scored
    measured = known.model("s").scores["alpaca_eval_2_lc"]
    for name, value in (("s", 31.0), ("w", 30.0)):
        both = {axis: measured.model_copy(update={"value": value}) for axis in ("ifeval", "alpaca_eval_2_lc")}
        known.models[name] = known.model(name).model_copy(update={"scores": both})
    known.studies["all"] = known.study("all").model_copy(update={"performance": "ifeval"})
    pair = known.pair("s--w")
    (done,) = redo_subjects(known, [Subject("s--w", (pair,))], data, store, lookup=Lookup(), reward="sum")
    show_boards([done], as_json=False)
    assert "gap: strong less weak in IFEval" in " ".join(capsys.readouterr().out.split())
    named = known.pair("two")
    with pytest.raises(UsageError, match=r"in different performances: ifeval \(s--w\), alpaca_eval_2_lc \(two\)"):
        _ = Subject("both", (pair, named)).performance
    assert Subject("both", (pair, named._replace(gap_points=float("nan")))).performance == "ifeval"


@pytest.mark.parametrize("value", [1.0, 3.0], ids=["no gap", "one pair with a gap"])
def test_a_study_with_too_little_to_take_apart_gives_words(scored, known, value, capsys):
    store, data = scored
    points = known.model("s").scores["alpaca_eval_2_lc"].model_copy(update={"value": value})
    known.models["s"] = known.model("s").model_copy(update={"scores": {"alpaca_eval_2_lc": points}})
    study = Subject("all", tuple(known.study_pairs(known.study("all"))), axes=("alpaca_eval_2_lc",))
    (done,) = redo_subjects(known, [study], data, store, lookup=Lookup(), reward="sum")
    expected = "nothing to take apart" if value == 1 else "2 models are too few to tell"
    assert expected in done.verdict
    show_boards([done], as_json=False)
    assert f"Is it the gap? {done.verdict}" in capsys.readouterr().out
    drawn = {path.name for path in draw(known, study, done.folder)}
    assert not figures_are_older(done.folder)
    assert ("decomposition.png" in drawn) == ("decomposition.md" in drawn) == (value == 3)
    page = html(gather(store, known, study, data, reward="sum", lookup=Lookup()))
    assert ("2 models are too few to tell" in page) == (value == 3)


def test_tables_of_a_part_name_the_rest_and_do_not_replace_whole_ones(scored, known, capsys):
    store, data = scored
    pairs = (known.pair("two"), known.pair("s--w"))
    part, whole = Subject("both", pairs[:1], left_out=("s--w",)), Subject("both", pairs)
    (first,) = redo_subjects(known, [part], data, store, lookup=Lookup(), reward="sum")
    assert stored_manifest(first.folder)["pairs_left_out"] == ["s--w"] and not first.problem
    show_boards([first], as_json=False)
    assert "\n1 of 2 pairs; left out: s--w\n" in capsys.readouterr().out
    show_boards([first], as_json=True)
    assert capsys.readouterr().err == "both: 1 of 2 pairs; left out: s--w\n"
    (full,) = redo_subjects(known, [whole], data, store, lookup=Lookup(), reward="sum")
    kept = (full.folder / "leaderboard.csv").read_bytes()
    assert "pairs_left_out" not in stored_manifest(full.folder) and len(full.board) == 2
    (again,) = redo_subjects(known, [part], data, store, lookup=Lookup(), reward="sum")
    assert again.folder == full.folder and (full.folder / "leaderboard.csv").read_bytes() == kept
    assert again.problem.startswith(
        f"{full.folder / 'leaderboard.csv'}: not replaced: it has 2 pairs, and 1 of them failed now"
    )


def test_a_renamed_copy_shows_the_tables_of_its_rows(scored, known, two, tmp_path):
    store, data = scored
    (first,) = redo_subjects(known, [two], data, store, lookup=Lookup(), reward="sum")
    copy = write_rows(tmp_path / "copy.jsonl")
    (again,) = redo_subjects(known, [two], copy, store, lookup=lookup_of(known), reward="sum")
    assert again.folder == first.folder == tmp_path / "results" / "two" / "base"
    assert result_folder(store, two, copy) == first.folder
    assert gather(store, known, two, copy, reward="sum", lookup=Lookup()).missing == ""


def test_tables_that_are_older_than_the_scores_or_of_another_dtype_are_not_reported(scored, known, two, tmp_path):
    store, data = scored
    (done,) = redo_subjects(known, [two], data, store, lookup=Lookup(), reward="sum")
    with pytest.raises(UsageError, match=r"of float32 by imported, not of bfloat16; `drsow leaderboard --pair two "):
        gather(store, known, two, data, reward="sum", lookup=lookup_of(known, dtype="bf16"))
    for score_set in store.find(model_id="s"):
        shutil.rmtree(score_set.folder)
    assert "s is not scored" in gather(store, known, two, data, reward="sum", lookup=Lookup()).missing
    file = tmp_path / "s.csv"
    scores(5.0).to_csv(file, index=False)
    import_scores(store, file, "s", "s", data, dtype="fp32")
    with pytest.raises(PreconditionError) as error:
        gather(store, known, two, data, reward="sum", lookup=Lookup())
    assert str(error.value) == (
        f"{done.folder}: its tables are of other scores of s; `drsow leaderboard --pair two --data {data.data_id} "
        f"--results {store.root}` writes them again"
    )
    redo_subjects(known, [two], data, store, lookup=Lookup(), reward="sum")
    assert gather(store, known, two, data, reward="sum", lookup=Lookup()).missing == ""


def test_tables_of_an_earlier_registry_are_refused_until_the_leaderboard_is_made_again(scored, known, tmp_path, capsys):
    store, data = scored
    study = Subject("all", tuple(known.study_pairs(known.study("all"))), axes=("alpaca_eval_2_lc",))
    (done,) = redo_subjects(known, [study], data, store, lookup=Lookup(), reward="sum")
    check_tables(done.folder, store, study, data, Lookup(), reward="sum")
    (pair,) = study.pairs
    for changed in (pair._replace(gap_points=1.5), pair._replace(weak="x"), pair._replace(pair_id="s--x")):
        with pytest.raises(
            PreconditionError, match=rf"the registry has changed .*\({pair.pair_id}\); `drsow leaderboard "
        ):
            check_tables(done.folder, store, study._replace(pairs=(changed,)), data, Lookup(), reward="sum")
    entries = tmp_path / "registry" / "models.toml"
    entries.write_text(entries.read_text().replace("value = 1.0", "value = 3.0", 1))
    options = {"study": "all", "data": data.data_id, "results": store.root, "registry": entries.parent}
    with pytest.raises(PreconditionError, match="the registry has changed since its tables were made"):
        figures(**options)
    (done.folder / "figures").mkdir()
    shutil.copy(done.folder / "leaderboard.csv", done.folder / "figures" / "gap_accuracy.csv")
    leaderboard(**options)
    assert figures_are_older(done.folder)
    assert "its figures are of earlier tables; `drsow figures --study all --regis" in capsys.readouterr().err


def test_other_labels_under_the_same_name_are_refused_and_then_stand_apart(scored, known, two, tmp_path):
    store, data = scored
    (first,) = redo_subjects(known, [two], data, store, lookup=Lookup(), reward="sum")
    assert first.board["score"].tolist() == [1.0]
    turned = write_rows(tmp_path / "other" / "base.jsonl", turned=True)
    for read in (
        lambda: result_folder(store, two, turned),
        lambda: gather(store, known, two, turned, reward="sum", lookup=Lookup()),
    ):
        with pytest.raises(PreconditionError, match=r"its tables belong to other rows than .*base\.jsonl has now; `dr"):
            read()
    with pytest.raises(PreconditionError, match=r"s is not scored on base .* on other rows \(base\)"):
        redo_subjects(known, [two], turned, store, lookup=Lookup(), reward="sum")
    for name, better in (("s", 4.0), ("w", 0.0)):
        file = tmp_path / f"{name}.csv"
        scores(better).to_csv(file, index=False)
        import_scores(store, file, name, "s", turned, dtype="fp32")
    (second,) = redo_subjects(known, [two], turned, store, lookup=Lookup(), reward="sum")
    assert second.folder.name == f"base-{turned.digest[:8]}"
    assert read_csv(first.folder / "leaderboard.csv")["score"].tolist() == [1.0]


@pytest.mark.parametrize(
    "name", ["leaderboard.csv", "accuracy.csv", "margins.csv", "length.csv", "length_balanced.csv"]
)
def test_a_table_that_was_cut_is_named_with_the_verb_that_writes_it_again(scored, known, two, name):
    store, data = scored
    (done,) = redo_subjects(known, [two], data, store, lookup=Lookup(), reward="sum")
    whole, path = (done.folder / name).read_bytes(), done.folder / name
    header = whole.partition(b"\n")[0] + b"\n"
    for text in (whole[:60], whole[:-5], header, header.replace(b"pair_id", b"other") + b"1\n", whole + b"," * 99, b""):
        path.write_bytes(text)
        with pytest.raises(PreconditionError, match=rf"/{name}: was cut or changed; `drsow leaderboard` writes it ag"):
            write_figures(done.folder, known)
            write_tables(done.folder, known, provenance="")
    path.write_bytes(whole)
    assert write_figures(done.folder, known)


def test_a_folder_that_cannot_be_written_still_gives_its_leaderboard(scored, known, two):
    store, data = scored
    (whole,) = redo_subjects(known, [two], data, store, lookup=Lookup(), reward="sum")
    assert whole.problem == ""
    # A file where the folder should be: nobody can write below it, root neither.
    blocked = two._replace(name="blocked")
    (store.root / "blocked").write_text("")
    (printed,) = redo_subjects(known, [blocked], data, store, lookup=Lookup(), reward="sum")
    assert "cannot be written" in printed.problem
    pd.testing.assert_frame_equal(printed.board, whole.board)


def test_each_pair_has_the_lengths_of_its_own_template(scored, known, tmp_path):
    store, data = scored
    # Under x's template a chosen response is 4 bytes longer than its text.
    for name, better in (("x", 4.0), ("w", 0.0)):
        frame = scores(better)
        frame["n_bytes"] += 4 * (frame["response_id"] == "chosen")
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
        import_scores(store, tmp_path / f"{name}.csv", name, "x", data, dtype="fp32")
    both = Subject("both", (known.pair("two"), known.pair("other")))
    # Under two templates w is two passes, so the pairs stand in tables of their own.
    with pytest.raises(UsageError, match="w is scored under the chat templates of s and of x"):
        redo_subjects(known, [both], data, store, lookup=Lookup(), reward="sum")
    other = both.pairs[1]._replace(weak="v")
    scores(0.0).to_csv(tmp_path / "v.csv", index=False)
    import_scores(store, tmp_path / "v.csv", "v", "x", data, dtype="fp32")
    known.models["v"] = known.model("w")
    both = both._replace(pairs=(both.pairs[0], other))
    (done,) = redo_subjects(known, [both], data, store, lookup=Lookup(), reward="sum")
    table = read_csv(done.folder / "length.csv").groupby("pair_id")["length_low_bytes"].min()
    assert table.to_dict() == {"two": 15, "other": 19}


def test_two_pairs_that_need_one_model_under_two_templates_are_not_compared(scored, known, tmp_path):
    store, data = scored
    for name, owner in (("x", "x"), ("w", "x")):
        scores(1.0).to_csv(tmp_path / f"{name}.csv", index=False)
        import_scores(store, tmp_path / f"{name}.csv", name, owner, data, dtype="fp32")
    subjects = [Subject(name, (known.pair(name),)) for name in ("two", "other")]
    with pytest.raises(UsageError, match="w is scored under the chat templates of s and of x"):
        compared_pairs(subjects, data, store, lookup=Lookup(), reward="sum")


def test_an_export_says_under_which_template_it_is_wanted(scored, known, tmp_path):
    store, data = scored
    import_scores(store, tmp_path / "w.csv", "w", "w", data, dtype="fp32")
    with pytest.raises(UsageError, match="choose with --template"):
        export_scores(store, "w", None, data, tmp_path / "out.csv", lookup=Lookup())
    export_scores(store, "w", "w", data, tmp_path / "out.csv", lookup=Lookup())
    assert read_csv(tmp_path / "out.csv")["logp_sum_nats"].tolist() == [-9.0] * 6


def test_a_pair_that_only_prefers_the_longer_response_is_warned_about_in_the_table(scored, known, two):
    store, data = scored
    (done,) = redo_subjects(known, [two], data, store, lookup=Lookup(), reward="sum")
    # The longer response is right in every row, and so is the pair.
    assert done.warning == (
        "Warning: always preferring the longer response scores 100.0%, and two scores 100.0%. Length decides the label "
        "of every row, so these rows cannot tell the reward from length."
    )
    table = read_csv(done.folder / "length_balanced.csv").iloc[0]
    assert (table["level"], table["accuracy"], table["longer"], table["as_good"]) == ("overall", 1.0, 1.0, "longer")
    assert pd.isna(table["balanced"])
    files = write_tables(done.folder, known, provenance="Made up.")
    text = (done.folder / "tables" / "length_balanced.md").read_text()
    assert done.folder / "tables" / "length_balanced.csv" in files
    assert "| two | 100.0 | – | 100.0 | 0.0 | score |" in text and done.warning in text


def test_the_sentences_tell_of_the_best_pair_and_margins_are_kept_of_the_three_best(scored, known, tmp_path):
    store, data = scored
    known.models["v"] = known.model("w")
    for name, wrong in (("x", ["2"]), ("v", ["1", "2"])):
        frame = scores(4.0)
        frame.loc[frame["example_id"].isin(wrong) & (frame["response_id"] == "chosen"), "logp_sum_nats"] = -13.0
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
        import_scores(store, tmp_path / f"{name}.csv", name, "s", data, dtype="fp32")
    two, *others = (known.pair("two")._replace(pair_id=f"{n}-w", strong=n) for n in "sxv")
    four = Subject("four", (*others, two._replace(pair_id="w-s", strong="w", weak="s"), two))
    (done,) = redo_subjects(known, [four], data, store, lookup=Lookup(), reward="sum")
    assert done.board["pair_id"].tolist() == ["s-w", "x-w", "v-w", "w-s"]
    assert done.alone.startswith("The strong model alone (`strong`) scores 100.0%")
    assert "and s-w scores 100.0%" in done.warning
    assert set(read_csv(done.folder / "margins.csv")["pair_id"]) == {"s-w", "x-w", "v-w"}


def test_a_folder_of_an_earlier_version_is_drawn_without_the_tables_that_it_lacks(scored, known, two):
    store, data = scored
    (done,) = redo_subjects(known, [two], data, store, lookup=Lookup(), reward="sum")
    for name in ("length_balanced.csv", "calibration.csv", "reliability.csv", "coverage.csv"):
        (done.folder / name).unlink()
    written = {
        path.stem for path in write_figures(done.folder, known) + write_tables(done.folder, known, provenance="")
    }
    assert written == {"margins", "length", "accuracy", "leaderboard"}


def test_too_few_rows_for_a_calibration_leave_its_tables_without_numbers(scored, known, two):
    store, data = scored
    (done,) = redo_subjects(known, [two], data, store, lookup=Lookup(), reward="sum")
    (row,) = read_csv(done.folder / "calibration.csv").to_dict("records")
    assert (row["pair_id"], row["accuracy"], row["n_examples"], row["n_problems"]) == ("two", 1.0, 3, 3)
    assert pd.isna([row[name] for name in ("confidence", "error", "error_low", "error_high")]).all()
    assert read_csv(done.folder / "reliability.csv").empty
    assert not {path.stem for path in write_figures(done.folder, known)} & {"reliability", "coverage"}
