"""Rows of benchmarks and labelled candidates: recognised by their columns, or refused with file, line and field."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from hub import Hub

from bench.data.load import REWARD_BENCH_VARIABLE, check_preferences, digest, fetch_data, load_data, load_prompts
from bench.data.named import BENCHMARKS, DATA_VARIABLE
from bench.schema import RM_BENCH_IDS, Example, Message, PreconditionError, UsageError

REPOSITORY = Path(__file__).parents[2]

TWO = {
    "id": "tied:3",
    "prompt": "Name a primary colour.",
    "chosen": ["Red.", "Blue."],
    "rejected": ["Pink.", "Grey.", "Mud."],
    "num_correct": 2,
    "num_incorrect": 3,
    "subset": "Ties",
}
STYLES = {
    "id": 8,
    "prompt": "How tall is a door?",
    "chosen": ["2 m.", "About two metres.", "**About** two metres."],
    "rejected": ["9 m.", "About nine metres.", "**About** nine metres."],
    "domain": "safety-refuse",
}
JUDGED = {
    "pair_id": "p-1",
    "original_id": 7,
    "source": "mmlu-pro-law",
    "question": "Which?",
    "response_model": "some",
    "response_A": "The first.",
    "response_B": "The second.",
    "label": "B>A",
}
OWN = {"prompt": "Pick a vowel.", "candidates": ["a", "b", "e"], "right": [0, 2], "id": "x"}
PAIR = {"id": "1", "prompt": "Hi", "chosen": "Hello.", "rejected": "No.", "subset": "s"}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (DATA_VARIABLE, REWARD_BENCH_VARIABLE):
        monkeypatch.delenv(name, raising=False)


def jsonl(*rows: dict, name: str = "rows.jsonl") -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def table(row: dict, ending: str) -> str:
    """A file of one row in each format; a CSV cell spells a list as JSON."""
    name = f"rows{ending}"
    if ending == ".csv":
        cells = {key: json.dumps(value) if isinstance(value, list) else value for key, value in row.items()}
        pd.DataFrame([cells]).to_csv(name, index=False)
    elif ending == ".parquet":
        pd.DataFrame([row]).to_parquet(name)
    else:
        Path(name).write_text(json.dumps([row]) if ending == ".json" else json.dumps(row))
    return name


ENDINGS = (".jsonl", ".parquet", ".csv", ".json")


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_row_of_reward_bench_2_has_its_right_responses_first(ending):
    (example,) = load_data(table(TWO, ending)).examples
    assert (example.example_id, example.subset) == ("Ties/tied:3", "Ties")
    assert [name for name, _ in example.responses] == ["chosen-0", "chosen-1", *(f"rejected-{i}" for i in range(3))]
    assert [text for _, text in example.responses] == [*TWO["chosen"], *TWO["rejected"]]
    assert example.right == ("chosen-0", "chosen-1")


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_row_of_rm_bench_has_its_domain_as_subset_and_a_response_for_each_style(ending):
    (example,) = load_data(table(STYLES, ending)).examples
    assert (example.example_id, example.subset) == ("safety-refuse/8", "safety-refuse")
    assert tuple(name for name, _ in example.responses) == RM_BENCH_IDS
    assert example.right == RM_BENCH_IDS[:3]
    assert dict(example.responses)["rejected-markdown"] == "**About** nine metres."


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(("label", "right"), [("A>B", "The first."), ("B>A", "The second.")])
def test_a_row_of_judge_bench_is_a_preference_by_its_label(ending, label, right):
    (example,) = load_data(table(JUDGED | {"label": label}, ending)).examples
    assert (example.example_id, example.subset) == ("mmlu-pro-law/p-1", "mmlu-pro-law")
    assert example.is_preference and dict(example.responses)["chosen"] == right
    assert example.messages == (Message("user", "Which?"),)


def test_equal_responses_of_judge_bench_are_kept():
    (example,) = load_data(jsonl(JUDGED | {"response_B": "The first."})).examples
    assert [text for _, text in example.responses] == ["The first.", "The first."]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(("right", "expected"), [([0, 2], ("0", "2")), ([1], ("1",)), (1, ("1",)), ([2, 2], ("2",))])
def test_candidates_with_the_positions_of_the_right_ones(ending, right, expected):
    (example,) = load_data(table(OWN | {"right": right}, ending)).examples
    assert [name for name, _ in example.responses] == ["0", "1", "2"]
    assert example.right == expected


def test_a_copy_of_a_right_candidate_is_right():
    row = OWN | {"candidates": ["7", "8", "7", "9"], "right": 0}
    (example,) = load_data(jsonl(row)).examples
    assert example.right == ("0", "2")
    with pytest.raises(UsageError, match="field right: has all candidates, so none is wrong"):
        load_data(jsonl(row | {"candidates": ["7", "7"]}))


@pytest.mark.parametrize(
    ("file", "subset", "domain"),
    [
        ("rows.json", "alpacaeval", "chat"),
        ("rows.json", "xstest-should-respond", "safety-response"),
        ("code_filtered.json", None, "code"),
        ("rm_bench_safety_refuse.json", "other", "safety-refuse"),
        ("math.json", None, "math"),
    ],
)
def test_a_file_of_rm_bench_without_domains_takes_them_from_its_subsets_or_its_name(file, subset, domain):
    row = {key: value for key, value in STYLES.items() if key != "domain"} | ({"subset": subset} if subset else {})
    Path(file).write_text(json.dumps([row]))
    assert load_data(file).examples[0].example_id == f"{domain}/8"


def test_lists_of_three_without_a_domain_are_candidates_like_others():
    row = {key: value for key, value in STYLES.items() if key != "domain"}
    (example,) = load_data(jsonl(row)).examples
    assert example.right == ("chosen-0", "chosen-1", "chosen-2")


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (TWO | {"num_correct": 1}, "field num_correct: is 1, but chosen has 2 texts"),
        (TWO | {"id": "x:3"}, "field id: must be 'ref:N' or 'tied:N' in the subset Ties, is 'x:3'"),
        (TWO | {"rejected": []}, "field rejected: must be a list of one or more texts, because the other side is a "),
        (TWO | {"rejected": "Pink."}, "field rejected: must be a list of one or more texts, because the other side is"),
        (TWO | {"rejected": ["Pink.", " "]}, "field rejected[1]: only whitespace"),
        (STYLES | {"chosen": ["2 m.", "Two."]}, "field chosen: must have three texts (concise, detailed plain, "),
        (JUDGED | {"label": "A=B"}, "field label: must be 'A>B' or 'B>A', is 'A=B'"),
        (JUDGED | {"response_A": None}, "field response_A: missing"),
        (OWN | {"right": []}, "field right: must be the position of the right candidate, 0 to 2, or a list of "),
        (OWN | {"right": [3]}, "field right: must be the position of the right candidate, 0 to 2, or a list of "),
        (OWN | {"right": [True]}, "field right: must be the position"),
        (OWN | {"right": "a"}, "field right: must be the position"),
        (OWN | {"right": None}, "field right: must be the position"),
        (OWN | {"right": [0, 1, 2]}, "field right: has all candidates, so none is wrong"),
        ({k: v for k, v in OWN.items() if k != "right"}, "field right: missing; candidates without it have no label"),
        (OWN | {"candidates": ["a"]}, "field candidates: must be a list of two or more texts"),
    ],
)
def test_a_bad_row_is_named_by_file_line_and_field(row, problem):
    with pytest.raises(UsageError) as error:
        load_data(jsonl(row))
    assert str(error.value).startswith(f"rows.jsonl, line 1, {problem}")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{}", "rows.json: not a JSON list of objects; a file with one object per line is a .jsonl file"),
        ("[1]", "rows.json, row 1: not a JSON object"),
        ("[{},\n{]", "rows.json, line 2: broken JSON: "),
        ("[]", "rows.json has no rows"),
    ],
)
def test_a_broken_json_file_is_one_line(text, problem):
    Path("rows.json").write_text(text)
    with pytest.raises(UsageError) as error:
        load_data("rows.json")
    assert str(error.value).startswith(problem) and "\n" not in str(error.value)


def test_a_response_that_spells_a_list_stays_a_text():
    row = PAIR | {"chosen": '["red", "blue"]', "rejected": '["mud"]'}
    (example,) = load_data(table(row, ".csv")).examples
    assert example.is_preference and example.responses[0][1] == '["red", "blue"]'


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    ("domain", "chosen", "rejected"),
    [
        ("python", '["a"]', '["b", "c"]'),
        ("python", '["a", "b", "c"]', '["d", "e", "f"]'),
        ("code", '["a"]', '["b", "c"]'),
        ("code", '["a", "b", "c"]', "No list."),
        ("code", '["a", "b", "c"]', "[1, 2, 3]"),
    ],
)
def test_a_response_that_spells_a_list_stays_a_text_beside_a_users_column_domain(ending, domain, chosen, rejected):
    row = PAIR | {"domain": domain, "chosen": chosen, "rejected": rejected}
    (example,) = load_data(table(row, ending)).examples
    assert example.responses == (("chosen", chosen), ("rejected", rejected)) and example.is_preference


def test_labels_are_part_of_the_digest_and_preferences_keep_theirs():
    data = [load_data(jsonl(OWN | {"right": right})) for right in ([0], [0, 2], [2])]
    assert len({found.digest for found in data}) == 3
    pair = Example("s/1", "s", (Message("user", "Hi"),), (("chosen", "Hello."), ("rejected", "No.")))
    # The four fields that an example had before labels were one.
    line = b'["s/1","s",[["user","Hi"]],[["chosen","Hello."],["rejected","No."]]]\n'
    assert digest([pair]) == load_data(jsonl(PAIR)).digest == hashlib.sha256(line).hexdigest()


def test_prompts_are_read_from_every_format():
    for row, text in ((TWO, TWO["prompt"]), (JUDGED, "Which?"), (OWN, OWN["prompt"])):
        (example,) = load_prompts(jsonl(row)).examples
        assert example.messages == (Message("user", text),)
        assert (example.responses, example.right) == ((), ())


def test_a_benchmark_is_read_from_the_folder_that_the_variable_names(monkeypatch):
    monkeypatch.setenv(DATA_VARIABLE, "air")
    jsonl(TWO, name="air/reward-bench-2.jsonl")
    Path("air/rm-bench").mkdir()
    Path("air/rm-bench/total_dataset.json").write_text(json.dumps([STYLES]))
    jsonl(JUDGED, name="air/judge-bench/data/gpt-00000-of-00001.jsonl")
    jsonl(JUDGED | {"pair_id": "p-2"}, name="air/judge-bench/data/claude-00000-of-00001.jsonl")
    jsonl(PAIR, name="air/reward-bench.jsonl")
    for name, slug, n in (
        ("reward-bench-2", "reward-bench-2", 1),
        ("rm-bench", "rm-bench", 1),
        ("judge-bench", "judge-bench", 2),
        ("judge-bench:claude", "judge-bench-claude", 1),
        ("reward-bench", "reward-bench", 1),
    ):
        data = load_data(name, offline=True)
        assert (data.data_id, data.slug, len(data.examples), data.revision) == (name, slug, n, "")
    assert load_data("judge-bench:claude").examples[0].example_id == "mmlu-pro-law/p-2"


def test_one_file_holds_all_splits_and_a_missing_split_is_named(monkeypatch):
    monkeypatch.setenv(DATA_VARIABLE, "air")
    jsonl(JUDGED, JUDGED | {"pair_id": "p-2"}, name="air/judge-bench.jsonl")
    assert len(load_data("judge-bench").examples) == 2
    Path("air/judge-bench.jsonl").rename("air/judge-bench-gpt.jsonl")
    assert len(load_data("judge-bench:gpt").examples) == 2
    with pytest.raises(PreconditionError, match=r"^air: has files of judge-bench, but none of its split claude$"):
        load_data("judge-bench")


def test_a_folder_of_benchmarks_that_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setenv(DATA_VARIABLE, "gone")
    with pytest.raises(PreconditionError, match=r"^DRSOW_DATA: no such folder: gone$"):
        load_data("rm-bench")


def test_an_unknown_split_is_named():
    with pytest.raises(UsageError, match=r"^judge-bench: no split 'gtp'; choose one of gpt, claude$"):
        load_data("judge-bench:gtp")
    with pytest.raises(UsageError, match=r"^rm-bench: no split 'train': it has no splits$"):
        load_data("rm-bench:train")


def test_a_users_file_shares_no_folder_name_with_a_benchmark():
    assert load_data(jsonl(TWO, name="reward-bench-2.jsonl")).slug == "reward-bench-2-file"


HUB = """
import json, os
from bench.data.load import fetch_data, load_data
from bench.schema import DrsowError

def outcome(name, offline):
    try:
        data = load_data(name, offline=offline)
        return [len(data.examples), data.revision]
    except DrsowError as error:
        return [error.code, str(error)]
"""

FETCHED = """
found = {"before": outcome("rm-bench", True)}
for name in ("reward-bench-2", "rm-bench", "judge-bench:gpt"):
    fetch_data(name)
    found[name] = outcome(name, True)
print(json.dumps(found))
"""


def outcome_of(script: str, hub: Hub, folder: Path) -> str:
    """The last line that a script prints, which finds `hub` and an empty cache."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DRSOW_", "HF_"))}
    variables = {"HF_HOME": str(folder / "cache"), "HF_ENDPOINT": hub.url, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", HUB + script], env=kept | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_the_hub_is_read_at_the_fixed_commit_and_then_without_a_socket(tmp_path):
    hub = Hub()
    rows = {"reward-bench-2": TWO, "rm-bench": STYLES, "judge-bench": JUDGED}
    commits = {name: source.commit.ljust(40, "0") for name, source in BENCHMARKS.items()}
    for name, source in BENCHMARKS.items():
        for commit, n in ((commits[name], 1), ("f" * 40, 2)):
            for file in source.files.values():
                path = tmp_path / name / commit / file
                path.parent.mkdir(parents=True, exist_ok=True)
                every = [rows[name] | {"id": f"ref:{i}", "pair_id": str(i)} for i in range(n)]
                if path.suffix == ".parquet":
                    pd.DataFrame(every).to_parquet(path)
                elif path.suffix == ".json":
                    path.write_text(json.dumps(every))
                else:
                    path.write_text("".join(json.dumps(row) + "\n" for row in every))
            hub.add(source.repository, tmp_path / name / commit, commit)
    found = json.loads(outcome_of(FETCHED, hub, tmp_path))
    code, words = found.pop("before")
    assert code == 4 and words.startswith("rm-bench: THU-KEG/RM-Bench is not on this machine; with access to the hub, ")
    # The newer commit has two rows.
    assert found == {name: [1, commits[name.partition(":")[0]]] for name in found}


def test_a_hub_that_breaks_the_connection_off_is_one_line(tmp_path):
    hub = Hub()
    hub.silent.add(BENCHMARKS["rm-bench"].repository)
    # The library waits for seconds between its tries.
    script = 'import time\ntime.sleep = lambda _: None\nprint(json.dumps(outcome("rm-bench", False)))'
    code, words = json.loads(outcome_of(script, hub, tmp_path))
    assert code == 4 and words.startswith("rm-bench: THU-KEG/RM-Bench is not on this machine; with access to the hub, ")
    assert "\n" not in words


def test_a_verb_that_takes_preferences_names_a_row_of_several_candidates():
    check_preferences(load_data(jsonl(PAIR)))
    check_preferences(load_data(jsonl(JUDGED)))
    words = (
        r"^rows\.jsonl: x: this verb takes preferences, one chosen and one rejected response per row, and this row has"
    )
    with pytest.raises(UsageError, match=words):
        check_preferences(load_data(jsonl(OWN)))


def test_fetching_an_unknown_name_is_refused():
    with pytest.raises(UsageError, match=r"^unknown data set 'rm-bnech', did you mean 'rm-bench'\?"):
        fetch_data("rm-bnech")
