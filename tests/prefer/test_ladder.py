"""Ladders: which preferences a rung reads, when a rung is broken, and what the written registry says."""

import tomllib
from pathlib import Path

import pytest

from bench.entries import FolderSource
from bench.measured import MeasuredScore, add_score
from bench.prefer.ladder import (
    judged,
    models_toml,
    net_preferences,
    pairs_toml,
    recipe_of,
    repeats,
    rows_of_rung,
    turned,
)
from bench.registry import load_registry, pairs_folder
from bench.schema import Example, Message, UsageError

STUDY = {"study_id": "mine", "performance": "ifeval"}
RUNGS = [
    {"rung_id": "a", "loss": "dpo", "n": 3},
    {"rung_id": "b", "loss": "dpo", "n": 2, "first": 3, "after": "a", "labels": "turned"},
]
LADDER = {"ladder_id": "up", "start": "smollm2-135m-instruct-q4", "rungs": RUNGS}
PREFERENCES = [
    Example(str(i), "", (Message("user", "x"),), (("chosen", f"yes {i}"), ("rejected", f"no {i}"))) for i in range(6)
]


def recipe(**more: object):
    return recipe_of({"study": STUDY, "ladders": [LADDER | more]}, "r.toml")


def test_rungs_of_a_chain_read_other_rows_whatever_the_order_of_the_file():
    (ladder,) = recipe().ladders
    first, second = (rows_of_rung(PREFERENCES, rung) for rung in ladder.rungs)
    assert len({row.example_id for row in first + second}) == 5
    again = [rows_of_rung(PREFERENCES[::-1], rung) for rung in ladder.rungs]
    assert again == [first, second]
    assert dict(first[0].responses)["chosen"].startswith("yes") and dict(second[0].responses)["chosen"].startswith("no")


def test_turned_labels_are_the_data_with_both_responses_in_each_others_place():
    assert turned(PREFERENCES[4]).responses == (("chosen", "no 4"), ("rejected", "yes 4"))
    assert turned(turned(PREFERENCES[4])) == PREFERENCES[4]


def test_a_rung_that_wants_more_rows_than_there_are_is_refused():
    (ladder,) = recipe().ladders
    with pytest.raises(UsageError, match=r"b: needs the preferences 4 to 5, but there are 4"):
        rows_of_rung(PREFERENCES[:4], ladder.rungs[1])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"rungs": [RUNGS[1]]}, r"r.toml: up: b: after: 'a' is no rung before it"),
        ({"rungs": [RUNGS[0], RUNGS[0]]}, r"r.toml: up-a is there twice"),
        ({"rungs": [RUNGS[0] | {"loss": "ppo"}]}, r"r.toml: ladders.0.rungs.0.loss: "),
        ({"rungs": [RUNGS[0] | {"loss": "sft", "beta": 1}]}, r"r.toml: ladders.0.rungs.0: sft has no beta; leave "),
        ({"rungs": [RUNGS[0] | {"gamma_ratio": 0.5}]}, r"r.toml: ladders.0.rungs.0: gamma_ratio is the margin of "),
        ({"rungs": [RUNGS[0] | {"seed": 2**32}]}, r"rungs.0.seed: Input should be less than or equal to 4294967295$"),
        ({"rung": []}, r"r.toml: ladders.0.rung: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_recipe_is_one_line_that_names_the_field(more, words):
    with pytest.raises(UsageError, match=words):
        recipe(**more)


def test_two_ladders_of_one_start_are_refused():
    ladders = [LADDER, LADDER | {"ladder_id": "down"}]
    with pytest.raises(UsageError, match=r"r.toml: down: start: 'smollm2-135m-instruct-q4' is also that of up, and a "):
        recipe_of({"study": STUDY, "ladders": ladders}, "r.toml")


def test_an_answer_repeats_itself_if_it_compresses_to_less_than_three_tenths():
    prose = (
        "To bake a loaf you mix flour, water, salt and yeast, let the dough rise for an hour, shape it by hand and put "
        "it into a hot oven until its crust sounds hollow. Leave it on a rack to cool before you cut the first slice."
    )
    assert repeats("I am sorry. " * 20) and repeats("!" * 100)
    assert not repeats(prose) and not repeats("no " * 10)


def test_a_rung_is_broken_if_half_of_its_answers_are_empty_or_repeat_themselves():
    good, bad = "Seven is a prime number.", "no " * 50
    assert judged([good, good, bad, ""]) == (4, 0.25, 0.25) and judged([good, good, bad, ""]).broken
    assert not judged([good, good, good, bad]).broken
    assert judged([" \n"]).empty == 1


def test_the_registry_has_every_rung_and_four_studies(tmp_path):
    known = load_registry()
    start = known.model("smollm2-135m-instruct-q4")
    specs = []
    for name in "ab":
        source = FolderSource(folder=Path("../run") / name)
        specs.append(start.model_copy(update={"model_id": f"up-{name}", "source": source, "format": "safetensors"}))
    (tmp_path / "models.toml").write_text(models_toml(specs))
    (tmp_path / "pairs.toml").write_text(pairs_toml(recipe(), ["up-b"], has_scores=False))
    for name, value in net_preferences(recipe().ladders[0], {"up-a": 3, "up-b": 2}).items():
        row = MeasuredScore(model_id=name, performance_id="net_preferences", value=value, source="s")
        add_score(tmp_path / "scores.toml", row)
    found = load_registry(tmp_path)
    assert found.model("up-a").source.folder == tmp_path / "../run/a"
    assert found.model("up-a").n_params == start.n_params and found.model("up-a").licence == start.licence
    members = {name: family.members for name, family in found.families.items() if name.startswith("up")}
    assert members == {
        "up": ("smollm2-135m-instruct-q4", "up-a", "up-b"),
        "up-unbroken": ("smollm2-135m-instruct-q4", "up-a"),
        "up-without-starts": ("up-a", "up-b"),
    }
    starts = {name: family.start for name, family in found.families.items() if name.startswith("up")}
    start_id = "smollm2-135m-instruct-q4"
    assert starts == {"up": start_id, "up-unbroken": start_id, "up-without-starts": None}
    studies = tomllib.loads(pairs_toml(recipe(), ["up-b"], has_scores=True))["studies"]
    assert [(each["study_id"], each["families"]) for each in studies] == [
        ("mine", ["up"]), ("mine-unbroken", ["up-unbroken"]), ("mine-without-starts", ["up-without-starts"]),
        ("mine-by-recipe", ["up"]),
    ]  # fmt: skip


def test_a_family_of_one_model_is_not_written():
    told = tomllib.loads(pairs_toml(recipe(rungs=RUNGS[:1]), ["up-a"], has_scores=True))
    assert [each["family_id"] for each in told["families"]] == ["up"]


def test_a_ladder_with_a_template_of_its_own_is_scored_under_its_first_rungs():
    for more, owner in ({}, "smollm2-135m-instruct-q4"), ({"template": "chatml"}, "up-a"):
        told = tomllib.loads(pairs_toml(recipe(**more), [], has_scores=True))
        assert {each["template"] for each in told["families"]} == {owner}


def test_preferences_turned_round_count_against_a_rung():
    rungs = [RUNGS[0] | {"n": 4}, {"rung_id": "c", "loss": "dpo", "n": 3, "labels": "turned", "after": "a"}]
    (ladder,) = recipe(rungs=rungs).ladders
    assert net_preferences(ladder, {"up-a": 4, "up-c": 3}) == {"smollm2-135m-instruct-q4": 0, "up-a": 4, "up-c": 1}
    # One of each was too long.
    assert net_preferences(ladder, {"up-a": 3, "up-c": 2}) == {"smollm2-135m-instruct-q4": 0, "up-a": 3, "up-c": 1}


def test_a_rung_of_a_subset_reads_only_its_rows():
    rows = [row._replace(subset="odd" if int(row.example_id) % 2 else "even") for row in PREFERENCES]
    (ladder,) = recipe(rungs=[RUNGS[0] | {"subset": "odd"}]).ladders
    assert sorted(row.example_id for row in rows_of_rung(rows, ladder.rungs[0])) == ["1", "3", "5"]
    with pytest.raises(UsageError, match=r"a: needs the preferences 1 to 3, but there are 2 in the subset odd"):
        rows_of_rung(rows[:4], ladder.rungs[0])


def test_the_shipped_recipe_makes_19_models_and_52_pairs_and_its_chains_do_not_overlap():
    found = recipe_of(tomllib.loads((pairs_folder() / "ladders.toml").read_text()), "ladders.toml")
    sizes = [1 + len(ladder.rungs) for ladder in found.ladders]
    assert (sum(sizes), sum(n * (n - 1) // 2 for n in sizes)) == (19, 52)
    for ladder in found.ladders:
        ends = {rung.rung_id: rung.first + rung.n for rung in ladder.rungs}
        assert all(rung.first == ends.get(rung.after, 0) for rung in ladder.rungs)
        assert max(ends.values()) <= 2200
