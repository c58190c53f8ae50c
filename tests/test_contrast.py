"""Pairs of one model: entries, what each side reads, one load of the weights, and all verbs from run to annotate."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from chat_templates import CHATML_SYSTEM
from commands import rows, write_rows
from tiny_models import entry, pair_entry, save_tiny
from tiny_tokenizers import byte_level
from transformers import AutoModelForCausalLM, AutoTokenizer

import bench
from bench.contrast import model_of
from bench.data.load import REWARD_BENCH_VARIABLE, load_candidates, load_data
from bench.files import read_csv
from bench.lookup import stored_sets
from bench.prefer.annotate import Filters
from bench.registry import load_registry
from bench.schema import Dataset, Example, Message, UsageError
from bench.scoring import models, passes, run
from bench.study.board import chosen_pairs
from bench.study.choose import Wish
from bench.study.report import gather
from bench.subject import Subject
from bench.verbs.ablate import Ablation, ablate_pair
from bench.verbs.annotate import Annotation, EnsembleWish, annotate_candidates
from bench.verbs.calibration import calibration_of
from bench.verbs.plan import Planner, plan_passes, planned_options, summary
from bench.verbs.run import redo_subjects, run_subjects
from bench.verbs.score import LOCAL, score_all
from bench.verbs.session import open_session
from bench.verbs.told import lookup_of, rows_for

RIGHT, WRONG = "Be right.", "Be wrong."
ONE = pair_entry("one", "tiny-strong", "tiny-strong")
TEXTS = ONE.rstrip() + f'\nstrong_text = "{RIGHT}"\nweak_text = "{WRONG}"\n'
HALF = TEXTS.replace('"one"', '"half"').replace(WRONG, "")
DOMAINS = ONE.replace('"one"', '"domains"').rstrip() + '\ntexts = "domains"\n'
STRONG, WEAK = "tiny-strong@one-strong", "tiny-strong@one-weak"
PROMPT = "Is 7 prime?"


@pytest.fixture(scope="module")
def folder(tiny_registry, tmp_path_factory):
    """The tiny registry with three pairs of one model."""
    folder = shutil.copytree(tiny_registry, tmp_path_factory.mktemp("contrast") / "registry")
    (folder / "pairs.toml").write_text((folder / "pairs.toml").read_text() + TEXTS + HALF + DOMAINS)
    return folder


@pytest.fixture(scope="module")
def known(folder):
    return load_registry(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return load_data(str(write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl", rows(8))))


@pytest.fixture
def session(known, tmp_path):
    return open_session(known, dtype="fp32", device="cpu", results=tmp_path / "results")


def subject(known, name: str) -> Subject:
    return Subject(name, (known.pair(name),))


def ran(session, name: str, data: Dataset):
    """The results folder of a run."""
    outcome = run_subjects(session, [subject(session.registry, name)], data, reward="sum", spread=LOCAL, seed=None)
    assert outcome.errors == []
    return outcome.written[0].folder


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (ONE, 'one: weak: is the strong model; a pair of one model needs strong_text and weak_text, or texts = "dom'),
        (TEXTS.replace(WRONG, f" {RIGHT} "), "one: weak_text: is the same as strong_text, so every reward would be 0"),
        (TEXTS.replace(RIGHT, "").replace(WRONG, ""), "one: weak_text: is the same as strong_text"),
        (TEXTS.replace(f'weak_text = "{WRONG}"', ""), "one: weak_text: missing beside strong_text; write weak_text = "),
        (TEXTS.replace(f'strong_text = "{RIGHT}"', ""), "one: strong_text: missing beside weak_text; write strong_te"),
        (TEXTS.replace(RIGHT, "  "), 'one: strong_text: is blank; write strong_text = "" if this side reads no text'),
        (TEXTS.replace(f'"{RIGHT}"', "7"), "one: strong_text: Input should be a valid string"),
        (TEXTS + 'texts = "domains"\n', 'one: texts: texts = "domains" and strong_text both say what a side reads'),
        (TEXTS + 'texts = "domain"\n', "one: texts: Input should be 'domains'"),
        (TEXTS + 'weaktext = "no"\n', "one: unknown field 'weaktext', did you mean 'weak_text'?"),
        (
            TEXTS.replace('weak = "tiny-strong"', 'weak = "tiny-weak"'),
            "one: strong_text: only a pair of one model reads texts, and strong and weak are two models here",
        ),
        (
            DOMAINS.replace('weak = "tiny-strong"', 'weak = "tiny-weak"'),
            "domains: texts: only a pair of one model reads texts",
        ),
    ],
)
def test_a_wrong_entry_is_named_with_its_file_and_field(tiny_registry, tmp_path, entry, message):
    shutil.copy(tiny_registry / "models.toml", tmp_path)
    (tmp_path / "pairs.toml").write_text(entry)
    with pytest.raises(UsageError) as error:
        load_registry(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'pairs.toml'}: {message}")
    assert "\n" not in str(error.value)


def test_a_domains_opposite_is_not_its_instruction(tmp_path):
    shipped = load_registry().domains["chat"]
    exemplar = "\n".join(f"{name} = {json.dumps(text)}" for name, text in shipped.exemplars[0].model_dump().items())
    head = '[[domains]]\ndomain_id = "law"\ndescription = "law"\nturn = "system"\ninstruction = "Be right."\n'
    path = tmp_path / "domains.toml"
    path.write_text(f'{head}opposite = "Be right. "\n[[domains.exemplars]]\n{exemplar}\n')
    with pytest.raises(UsageError, match=f"^{path}: law: opposite: is the same as instruction$"):
        load_registry(tmp_path)


def test_a_side_without_a_text_is_the_plain_model(known):
    assert known.pair("one")[1:3] == (STRONG, WEAK)
    assert known.pair("half")[1:3] == ("tiny-strong@half-strong", "tiny-strong")
    assert known.models_of("one") == ["tiny-strong"]
    assert known.pair("one").of_one_model and not known.pair("tiny").of_one_model


def test_each_side_reads_its_text_in_the_system_turn(known):
    asked = (Message("user", PROMPT),)
    answers = (("chosen", "yes"), ("rejected", "no"))
    told = Message("system", "Be brief.")
    data = Dataset("d", "d", "d1", (Example("1", "", asked, answers), Example("2", "", (told, *asked), answers)))
    for name, text in ((STRONG, RIGHT), (WEAK, WRONG)):
        found = rows_for(known, name, data)
        assert [e.messages[0] for e in found.examples] == [
            Message("system", text),
            Message("system", f"{text}\n\nBe brief."),
        ]
        assert [e.messages[1:] for e in found.examples] == [asked, asked]
        assert [(e.example_id, e.responses) for e in found.examples] == [("1", answers), ("2", answers)]
    assert rows_for(known, "tiny-strong", data) is data


def test_domains_give_each_prompt_its_instruction_and_its_opposite(known):
    maths, safety = known.domains["maths"], known.domains["safety"]
    asked = [domain.queries[0] for domain in (maths, safety)]
    data = Dataset("d", "d", "d1", tuple(Example(q, "", (Message("user", q),), ()) for q in asked))
    strong, weak = (rows_for(known, f"tiny-strong@domains-{side}", data) for side in ("strong", "weak"))
    assert [e.messages[0].content for e in strong.examples] == [maths.instruction, safety.instruction]
    assert [e.messages[0].content for e in weak.examples] == [maths.opposite, safety.opposite]


def test_the_reward_is_the_log_probability_under_one_text_less_that_under_the_other(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder / "strong")
    model = AutoModelForCausalLM.from_pretrained(folder / "strong", dtype=torch.float64)

    def total(text: str, response: str) -> float:
        turns = [{"role": "system", "content": text}, {"role": "user", "content": PROMPT}]
        prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        head = tokenizer(prompt, add_special_tokens=False).input_ids
        tail = [*tokenizer(response, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
        logps = model(torch.tensor([head + tail])).logits[0].log_softmax(-1)
        return sum(logps[len(head) + i - 1, token].item() for i, token in enumerate(tail))

    with torch.no_grad():
        exact = [total(RIGHT, response) - total(WRONG, response) for response in ("yes", "no, it is")]
    with bench.Annotator("one", dtype="fp32", device="cpu", registry=folder) as annotator:
        assert annotator.reward(PROMPT, ["yes", "no, it is"]) == pytest.approx(exact, abs=1e-3)
        frame = annotator.tokens(PROMPT, "yes")
    assert frame["ratio_nats"].sum() == pytest.approx(exact[0], abs=1e-3)


@pytest.fixture
def loads(monkeypatch) -> list[torch.dtype]:
    """The dtype of each load of weights."""
    found, load = [], models.load_model

    def counted(folder, *, dtype, **options):
        found.append(dtype)
        return load(folder, dtype=dtype, **options)

    monkeypatch.setattr(models, "load_model", counted)
    return found


def test_two_texts_and_no_text_are_three_passes_of_one_load(session, data, loads):
    subjects = [subject(session.registry, name) for name in ("one", "half")]
    sets, errors, _ = score_all(session, subjects, data)
    assert (errors, loads) == ([], [torch.float32])
    assert [model_of(name) for name, _ in sets] == ["tiny-strong"] * 4
    # The strong sides of both pairs read the same text, so they share one set.
    keys = {name: score_set.key for (name, _), score_set in sets.items()}
    assert keys[STRONG] == keys["tiny-strong@half-strong"]
    assert len({*keys.values()}) == 3 and len({key.revision for key in keys.values()}) == 1
    assert {key.model_id for key in keys.values()} == {"tiny-strong"}
    assert keys["tiny-strong"].domain == keys["tiny-strong"].domain_digest == ""
    assert len({key.domain_digest for key in keys.values()}) == len({key.data_digest for key in keys.values()}) == 3


def test_in_bfloat16_the_weights_are_loaded_once_and_once_more_for_the_precision(known, data, loads, tmp_path):
    session = open_session(known, dtype="bf16", device="cpu", results=tmp_path)
    sets, errors, _ = score_all(session, [subject(known, "one")], data)
    assert (errors, loads) == ([], [torch.bfloat16, torch.float32])
    assert all(score_set.info()["precision"]["n_responses"] == 16 for score_set in sets.values())


def test_another_token_budget_than_that_of_stored_bfloat16_scores_is_told_if_the_user_gave_it(
    known, data, tmp_path, capsys
):
    def said(dtype: str, budget: int | None) -> str:
        session = open_session(known, dtype=dtype, device="cpu", batch_tokens=budget, results=tmp_path)
        capsys.readouterr()
        assert score_all(session, [subject(known, "one")], data)[1] == []
        return "".join(line for line in capsys.readouterr().err.splitlines() if line.startswith("warning"))

    words = "warning: --batch-tokens 64: bfloat16 scores with another number are stored and not scored again: "
    assert [said("bf16", budget) for budget in (32, 32, None)] == ["", "", ""]
    assert said("bf16", 64).startswith(f"{words}tiny-strong (32);")
    assert [said("fp32", budget) for budget in (32, 64)] == ["", ""]


def test_scores_together_equal_scores_of_each_side_alone(session, known, data, tmp_path):
    together, _, _ = score_all(session, [subject(known, "one")], data)
    alone = open_session(known, dtype="fp32", device="cpu", results=tmp_path / "alone")
    for name, owner in together:
        pair = known.pair("one")._replace(strong=name, weak=name)
        sets, _, _ = score_all(alone, [Subject("side", (pair,))], data)
        pd.testing.assert_frame_equal(sets[name, owner].read(), together[name, owner].read())


def test_a_row_that_one_pass_cannot_read_does_not_stop_the_other_passes(session, known, data):
    spec = known.model("tiny-strong")
    empty = Example("9", "words", (Message("user", "Hi"),), (("chosen", "yes"), ("rejected", " ")))
    broken = data._replace(examples=(*data.examples, empty), digest="other")
    both = [passes.make_ready(passes.Work(spec, spec, each), session.options) for each in (broken, data)]
    with pytest.raises(UsageError, match=r"^9: response rejected is empty$"):
        run.score_together([run.Job(ready) for ready in both], session.store, session.options)
    assert [session.store.score_set(ready.key).complete for ready in both] == [False, True]


def test_a_text_that_fills_the_context_is_refused(session, folder, data, tmp_path):
    changed = shutil.copytree(folder, tmp_path / "changed")
    path = changed / "pairs.toml"
    path.write_text(path.read_text().replace(WRONG, "be wrong " * 3000))
    known = load_registry(changed)
    _, errors, code = score_all(session._replace(registry=known), [subject(known, "one")], data)
    assert code == 2 and len(errors) == 1
    assert errors[0].startswith(f"{WEAK}: its longest text has ")
    assert errors[0].endswith("tokens, but the context of tiny-strong holds 2,048; shorten the text")


@pytest.mark.parametrize("name", ["one", "half", "domains"])
def test_a_pair_of_one_model_goes_through_run_leaderboard_and_report(session, known, data, name):
    folder = ran(session, name, data)
    board = read_csv(folder / "leaderboard.csv")
    strong, weak, *_ = known.pair(name)[1:]
    assert board[["pair_id", "strong", "weak"]].to_numpy().tolist() == [[name, strong, weak]]
    # One load: the parameters count once. Two passes: the work counts twice.
    assert board["n_params"].tolist() == [30_000] and pd.isna(board["gap_points"][0])
    assert board["strong_revision"][0] != board["weak_revision"][0]
    texts = json.loads((folder / "manifest.json").read_text())["texts"]
    assert set(texts) == {side for side in (strong, weak) if side != "tiny-strong"}
    if name == "one":
        assert texts == {STRONG: RIGHT, WEAK: WRONG}
    before = (folder / "leaderboard.csv").read_bytes()
    lookup = lookup_of(known)
    redo_subjects(known, [subject(known, name)], data, session.store, lookup=lookup, reward="sum")
    assert (folder / "leaderboard.csv").read_bytes() == before
    report = gather(session.store, known, subject(known, name), data, reward="sum", lookup=lookup)
    assert report.missing == "" and report.board["pair_id"].tolist() == [name]
    assert (folder / "figures" / "accuracy.png").is_file()


def test_a_changed_text_is_scored_again(session, known, folder, data, tmp_path):
    score_all(session, [subject(known, "one")], data)
    assert stored_sets(session.store, subject(known, "one"), data, lookup_of(known))
    changed = shutil.copytree(folder, tmp_path / "changed")
    path = changed / "pairs.toml"
    path.write_text(path.read_text().replace(WRONG, "Be silly."))
    other = load_registry(changed)
    with pytest.raises(bench.PreconditionError, match=f"^{WEAK} is not scored on .*`drsow run --pair one "):
        stored_sets(session.store, subject(other, "one"), data, lookup_of(other))


def test_a_plan_counts_two_passes_and_one_load(session, known, data):
    planned = session._replace(options=planned_options("fp32", on_cpu=True))
    planner = Planner(planned, data, lookup_of(known, dtype="fp32"))
    table = plan_passes(planner, [subject(known, "one")], gpu="h100", cpu_rate=None)
    assert table["model_id"].tolist() == [STRONG, WEAK] and table["status"].tolist() == ["ok", "ok"]
    first, *_ = summary(table, data, gpu="h100", n_pairs=1)
    assert first == "1 pair, 2 model passes, 2 of them to do with 1 load of weights (2 ok)"
    plain = plan_passes(planner, [subject(known, "half")], gpu="h100", cpu_rate=None).set_index("model_id")
    # The text is part of the prompt, so its tokens count.
    assert table["tokens"].iloc[0] > plain.loc["tiny-strong", "tokens"]
    score_all(session, [subject(known, "one")], data)
    assert plan_passes(planner, [subject(known, "one")], gpu="h100", cpu_rate=None)["status"].tolist() == ["scored"] * 2


WISH = Annotation(Filters(), "plain", "classifier", 0, "sum")


def test_a_pair_of_one_model_labels_candidates_and_the_card_has_its_texts(session, known, folder, tmp_path):
    texts = ["yes", "no, never"]
    made = [{"id": i, "prompt": f"Is {i} prime?", "candidates": texts} for i in range(3)]
    candidates = load_candidates(str(write_rows(tmp_path / "c.jsonl", made)))
    annotate_candidates(session, subject(known, "one"), candidates, WISH, out=tmp_path / "out")
    lines = (tmp_path / "out" / "preferences.jsonl").read_text().splitlines()
    for row in map(json.loads, lines):
        exact = bench.reward("one", row["prompt"][0]["content"], texts, dtype="fp32", registry=folder)
        assert row["rewards"] == pytest.approx(exact, abs=1e-3)
        # The prompt is the user's: the text of a side is not in it.
        assert [turn["role"] for turn in row["prompt"]] == ["user"]
    assert RIGHT in (tmp_path / "out" / "README.md").read_text()
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["texts"] == {STRONG: RIGHT, WEAK: WRONG}


def test_a_domains_text_and_a_sides_text_do_not_meet(session, known, data, tmp_path):
    with pytest.raises(UsageError, match=r"^one: is a pair of one model, .* --customise both would put another text"):
        annotate_candidates(session, subject(known, "one"), data, WISH._replace(variant="both"), out=tmp_path / "o")
    with pytest.raises(UsageError, match=r"^one: is a pair of one model, .* an ablation would put another text"):
        ablate_pair(session, subject(known, "one"), data, Ablation(["classifier"], 0, "sum"))


def test_a_kept_model_reads_a_changed_text(folder, tmp_path):
    found = [bench.reward("one", PROMPT, ["yes"], dtype="fp32", device="cpu", registry=folder)]
    changed = shutil.copytree(folder, tmp_path / "changed")
    path = changed / "pairs.toml"
    # The files of the model stay where they were, so that only the text differs.
    (changed / "models.toml").write_text(
        (folder / "models.toml").read_text().replace('folder = "', f'folder = "{folder}/')
    )
    path.write_text(path.read_text().replace(WRONG, "Be silly."))
    found += [bench.reward("one", PROMPT, ["yes"], dtype="fp32", device="cpu", registry=changed)]
    with bench.Annotator("one", dtype="fp32", device="cpu", registry=changed) as annotator:
        assert found[1] == pytest.approx(annotator.reward(PROMPT, ["yes"]), abs=1e-4)
    assert found[0] != pytest.approx(found[1], abs=1e-4)
    bench.release()


def test_choose_takes_pairs_by_name_and_counts_the_passes_of_an_ensemble_once(session, known, tmp_path):
    made = load_data(str(write_rows(tmp_path / "rows.jsonl", rows(16))))
    every = [subject(known, name) for name in ("one", "half", "domains")]
    together = every[0]._replace(pairs=tuple(each.pairs[0] for each in every))
    sets, errors, _ = score_all(session, every, made)
    assert errors == []
    found = chosen_pairs(known, together, made, sets, Wish(), reward="sum", top=1, n_best=3).table.set_index("rule")
    # Two texts, none, and the domains' two: five passes of one model's weights.
    assert found.loc["mean of 3", ["n_passes", "n_params"]].tolist() == [5, 30_000]
    assert found["over_best"].notna().tolist() == [False, False, True, True, True]
    assert "largest gap" not in found.index


def test_pairs_label_together_by_constants_of_a_scored_data_set(folder, data, tmp_path):
    # The last two pairs read the same models under two templates.
    names = ("one", "tiny", "framed")
    folder = shutil.copytree(folder, tmp_path / "registry")
    other = byte_level(eos="<|im_end|>", special=["<|im_start|>"])
    other.chat_template = CHATML_SYSTEM
    save_tiny(folder / "other", tokenizer=other, seed=3)
    with (folder / "models.toml").open("a") as models_toml, (folder / "pairs.toml").open("a") as pairs_toml:
        models_toml.write(entry("tiny-other", "other"))
        framed = pair_entry("framed", "tiny-strong", "tiny-weak").rstrip()
        pairs_toml.write(f'{framed}\ntemplate = "tiny-other"\n')
    known = load_registry(folder)
    session = open_session(known, dtype="fp32", device="cpu", results=tmp_path / "results")
    each = [subject(known, name) for name in names]
    pairs = each[0]._replace(name="+".join(names), pairs=tuple(one.pairs[0] for one in each))
    texts = ["yes", "no, never", "it is two"]
    made = [{"id": i, "prompt": f"Is {i} prime?", "candidates": texts} for i in range(4)]
    candidates = load_candidates(str(write_rows(tmp_path / "c.jsonl", made)))
    wish = WISH._replace(ensemble=EnsembleWish("mean", data.data_id))
    with pytest.raises(bench.PreconditionError, match="is not scored on rows"):
        annotate_candidates(session, pairs, candidates, wish, out=tmp_path / "early")
    score_all(session, each, data)
    alone = {
        name: [bench.reward(name, row["prompt"], texts, dtype="fp32", device="cpu", registry=folder) for row in made]
        for name in names
    }
    for rule in ("mean", "minimum", "fitted"):
        out = tmp_path / rule
        wish = WISH._replace(ensemble=EnsembleWish(rule, data.data_id))
        annotate_candidates(session, pairs, candidates, wish, out=out)
        told = json.loads((out / "manifest.json").read_text())["ensemble"]
        assert told["rule"] == rule and told["passes"] == 6 and sum(told["weights"].values()) == pytest.approx(1)
        assert "8 rows" in told["from"] and str(told["scales"]) in (out / "README.md").read_text()
        for line in map(json.loads, (out / "preferences.jsonl").read_text().splitlines()):
            number = int(line["example_id"])
            standard = np.array([np.array(alone[name][number]) / told["scales"][name] for name in alone])
            weighted = np.array([told["weights"][name] for name in alone]) @ standard
            assert line["rewards"] == pytest.approx(weighted.tolist(), abs=1e-3)
            picked = [texts.index(line[side][0]["content"]) for side in ("chosen", "rejected")]
            margins = standard[:, picked[0]] - standard[:, picked[1]]
            if rule == "minimum":
                assert line["margin"] == pytest.approx(margins.min(), abs=1e-3) and margins.min() > 0
            else:
                assert picked == [weighted.argmax(), weighted.argmin()]


def test_the_benchmark_that_a_pair_of_one_model_is_scored_on_calibrates_it(session, known, tmp_path, monkeypatch):
    monkeypatch.setenv(REWARD_BENCH_VARIABLE, str(write_rows(tmp_path / "rb.jsonl", rows(12))))
    assert calibration_of(session, subject(known, "one"), None, reward="sum") is None
    ran(session, "one", load_data("reward-bench"))
    told = calibration_of(session, subject(known, "one"), None, reward="sum").told
    assert (told["data"], told["n_examples"]) == ("reward-bench", 12)
