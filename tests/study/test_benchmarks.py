"""The arithmetic of each benchmark, against its own published function where a package has it, else by hand."""

import ast
import math
from importlib import metadata

import numpy as np
import pandas as pd
import pytest

from bench.schema import PARTS, RM_BENCH_IDS, SECTIONS, SUBSET_WEIGHTS, Example, Message
from bench.study.benchmarks import BENCHMARKS, Benchmark, benchmark_of, of_columns, of_sections, of_table
from bench.study.benchmarks.judge_bench import JUDGE_BENCH
from bench.study.benchmarks.plain import PLAIN
from bench.study.benchmarks.reward_bench import REWARD_BENCH
from bench.study.benchmarks.reward_bench_2 import REWARD_BENCH_2, TIES_PARTS, ties_margins
from bench.study.benchmarks.rm_bench import CELLS, RM_BENCH, cell_name, difficulty
from bench.study.design import prompt_clusters, rows_of
from bench.study.metrics import TABLE, measured, table

NAN = float("nan")
N_TABLES = 200


def example(subset: str, row: str, n_right: int, n_wrong: int, *, names: tuple[str, ...] = ()) -> Example:
    """An example with so many right and wrong responses, as the loader names them."""
    names = names or tuple([f"chosen-{i}" for i in range(n_right)] + [f"rejected-{i}" for i in range(n_wrong)])
    texts = tuple((name, f"text {name}") for name in names)
    return Example(f"{subset}/{row}", subset, (Message("user", f"{subset} {row}"),), texts, names[:n_right])


def pair(subset: str, row: str) -> Example:
    return example(subset, row, 1, 1, names=("chosen", "rejected"))


def six(domain: str, row: int) -> Example:
    return example(domain, str(row), 3, 3, names=RM_BENCH_IDS)


def found(benchmark: Benchmark, examples: list[Example], rewards: list[list[float]]) -> pd.DataFrame:
    """The benchmark's table of one judge, by (level, name)."""
    assert benchmark_of(examples) is benchmark
    frame = table(benchmark, examples, [np.array([values], dtype=float) for values in rewards])
    assert tuple(frame.columns) == TABLE
    return frame.set_index(["level", "name"])


def values_of(benchmark: Benchmark, examples: list[Example], rewards: list[np.ndarray]) -> pd.DataFrame:
    """The values of many judges, (runs, responses) of each example: a row per judge, a column per (level, name)."""
    assert benchmark_of(examples) is benchmark
    runs = pd.DataFrame({"pair_id": range(len(rewards[0])), "reward": "sum"})
    frame = measured(runs, benchmark.judge(examples, rewards), benchmark.layout(examples))
    return frame.pivot(index="pair_id", columns=["level", "name"], values="accuracy")


def full(benchmark: Benchmark, examples: list[Example], rewards: list[list[float]]) -> pd.DataFrame:
    """ACCURACY of one judge, by name."""
    answers = benchmark.judge(examples, [np.array([values], dtype=float) for values in rewards])
    runs = pd.DataFrame({"pair_id": ["p"], "reward": ["sum"]})
    return measured(runs, answers, benchmark.layout(examples)).set_index("name")


def published(*names: str) -> dict:
    """Functions of RewardBench's installed source, taken alone: its other imports are not installed."""
    try:
        files = metadata.files("rewardbench")
    except metadata.PackageNotFoundError:
        pytest.fail("the reference is not installed: pip install --no-deps rewardbench==0.1.4")
    (source,) = [file for file in files if str(file) == "rewardbench/utils.py"]

    class Rows(list):
        """Stands for the library's table: the function's first result, which no test reads."""

        @staticmethod
        def from_dict(_columns: dict) -> list:
            return []

        @staticmethod
        def from_pandas(frame: pd.DataFrame) -> pd.DataFrame:
            return frame

    space: dict = {"np": np, "pd": pd, "math": math, "Dataset": Rows}
    for node in ast.parse(source.read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.name in names:
            exec(compile(ast.Module([node], []), str(source), "exec"), space)
    return space


class Frame:
    """What `reroll_and_score_dataset` asks of a table."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame

    def to_pandas(self) -> pd.DataFrame:
        return self.frame


def ties(n_prompts: int, rng: np.random.Generator) -> list[Example]:
    """Prompts of Ties in both forms, in random order."""
    rows = [example("Ties", f"ref:{i}", 1, int(rng.integers(1, 5))) for i in range(n_prompts)]
    rows += [example("Ties", f"tied:{i}", int(rng.integers(2, 6)), int(rng.integers(1, 5))) for i in range(n_prompts)]
    return [rows[i] for i in rng.permutation(len(rows))]


def right(example: Example) -> np.ndarray:
    """1 for each right response, 0 for each wrong one."""
    return np.array([float(name in example.right) for name, _ in example.responses])


def samples(examples: list[Example], rewards: list[list[float]]) -> list[dict]:
    """Rows as the published function of Ties reads them."""
    return [
        {"id": e.example_id.partition("/")[2], "scores": list(r), "num_correct": len(e.right)}
        for e, r in zip(examples, rewards, strict=True)
    ]


def test_ties_equal_the_published_function_on_200_random_tables():
    """Compared with `process_single_model` of rewardbench 0.1.4.

    A prompt without its other form counts in the accuracy of its own form, as in the published function.
    """
    reference = published("sample_stats", "process_single_model")["process_single_model"]
    rng = np.random.default_rng(1)
    for number in range(8):
        # Every second set of prompts lacks a row, so one prompt has one form alone.
        examples = ties(int(rng.integers(2, 8)), rng)[number % 2 :]
        rewards = [
            np.round(rng.normal(0, 2, (N_TABLES // 8, len(e.responses))) + (number > 3) * 3 * right(e), 3)
            for e in examples
        ]
        ours = values_of(REWARD_BENCH_2, examples, rewards)["section", "Ties"]
        for run, value in ours.items():
            expected = reference(samples(examples, [each[run] for each in rewards]))[1]
            assert value == pytest.approx(expected, abs=1e-12)


def test_best_of_four_equals_the_published_function_on_200_random_tables():
    """Compared with `reroll_and_score_dataset` of rewardbench 0.1.4; rewards of few values, so that many are equal."""
    reference = published("reroll_and_score_dataset")["reroll_and_score_dataset"]
    rng, n = np.random.default_rng(2), 11
    examples = [example(PARTS["reward-bench-2"][i % 5], str(i), 1, 3) for i in range(n)]
    rewards = rng.integers(0, 4, (N_TABLES, n, 4)).astype(float)
    ours = values_of(REWARD_BENCH_2, examples, list(rewards.swapaxes(0, 1)))["section"]
    for run in range(N_TABLES):
        rows = [(i, rewards[run, i, j], examples[i].subset) for i in range(n) for j in range(4)]
        frame = Frame(pd.DataFrame(rows, columns=["id", "scores", "subset"]))
        expected = reference(frame, [4] * n, cols_to_combine=["scores"]).groupby("subset")["results"].mean()
        assert ours.loc[run, expected.index].tolist() == pytest.approx(expected.tolist(), abs=1e-12)


def test_the_score_of_reward_bench_2_is_the_plain_mean_of_its_six_subsets():
    rows = [(name, [2, 1, 0, 0]) for name in PARTS["reward-bench-2"][:4]] + [("Focus", [0, 1, 0, 0])]
    examples = [example(name, "1", 1, 3) for name, _ in rows]
    examples += [example("Ties", "ref:7", 1, 1), example("Ties", "tied:7", 2, 1)]
    # tied: c = 3 - 0 = 3, d = 4 - 3 = 1; ref: c = 2. The lesser lead is 2: tanh(2 / 1 - 1).
    values = found(REWARD_BENCH_2, examples, [r for _, r in rows] + [[2, 0], [4, 3, 0]])["value"]
    of_ties = 0.3 + 0.3 + 0.2 + 0.2 + 0.01 * math.tanh(1)
    assert values["section", "Ties"] == pytest.approx(of_ties, abs=1e-15)
    assert values["overall", "score"] == pytest.approx((4 + 0 + of_ties) / 6, abs=1e-15)
    assert values["subset", "ties-margin"] == pytest.approx(math.tanh(1), abs=1e-15)


def test_a_row_counts_one_kth_if_its_right_response_is_among_the_k_best():
    rows = [[3, 1, 1, 1], [3, 3, 1, 1], [3, 3, 3, 3], [1, 3, 3, 1]]
    examples = [example("Math", str(i), 1, 3) for i in range(4)]
    whole = full(REWARD_BENCH_2, examples, rows).loc["Math"]
    assert whole["accuracy"] == pytest.approx((1 + 1 / 2 + 1 / 4 + 0) / 4)
    assert (whole["n_ties"], whole["tie_rate"], whole["n_examples"]) == (2, 0.5, 4)


def test_ties_whose_candidates_are_all_tied_are_wrong_and_their_margin_counts_0():
    examples = [example("Ties", "ref:1", 1, 2), example("Ties", "tied:1", 3, 2)]
    frame = found(REWARD_BENCH_2, examples, [[1.0] * 3, [1.0] * 5])["value"]
    assert [frame["subset", name] for name in TIES_PARTS] == [0, 0, 0, 0, 0]
    assert full(REWARD_BENCH_2, examples, [[1.0] * 3, [1.0] * 5]).loc["ties-tied", "n_ties"] == 1


def test_a_spread_of_0_gives_the_whole_margin():
    # tied: c = 2, d = 0, so the ratio is infinite and its tanh 1.
    examples = [example("Ties", "ref:1", 1, 1), example("Ties", "tied:1", 2, 1)]
    frame = found(REWARD_BENCH_2, examples, [[1, 0], [2, 2, 0]])["value"]
    assert frame["section", "Ties"] == pytest.approx(1.01, abs=1e-15)


def test_a_prompt_of_ties_without_its_other_form_counts_in_its_own_accuracy_alone():
    examples = [
        example("Ties", "ref:1", 1, 1),
        example("Ties", "tied:1", 2, 1),
        example("Ties", "tied:2", 2, 1),
        example("Ties", "ref:3", 1, 1),
    ]
    frame = found(REWARD_BENCH_2, examples, [[1, 0], [3, 2, 0], [0, 0, 1], [0, 1]])
    assert frame["value"]["subset", "ties-tied"] == 0.5 and frame["value"]["subset", "ties-ref"] == 0.5
    assert frame["value"]["subset", "ties-preferred"] == 1.0
    assert [frame["n"]["subset", name] for name in ("ties-tied", "ties-ref", "ties-preferred")] == [2, 2, 1]


def test_ties_without_a_prompt_in_both_forms_are_missing_and_never_0():
    frame = found(
        REWARD_BENCH_2, [example("Ties", "ref:1", 1, 1), example("Ties", "tied:2", 2, 1)], [[1, 0], [2, 1, 0]]
    )
    assert np.isnan(frame["value"]["section", "Ties"]) and np.isnan(frame["value"]["overall", "score"])
    assert frame["value"]["subset", "ties-ref"] == 1.0


def test_a_row_of_which_one_candidate_is_not_scored_is_excluded_and_counted():
    examples = [example("Focus", "1", 1, 3), example("Focus", "2", 1, 3)]
    examples += [example("Ties", "ref:1", 1, 1), example("Ties", "tied:1", 2, 1)]
    whole = full(REWARD_BENCH_2, examples, [[1, 0, 0, 0], [1, 0, NAN, 0], [1, 0], [NAN, 2, 0]])
    assert whole.loc["Focus", ["accuracy", "n_examples", "n_excluded"]].tolist() == [1.0, 1, 1]
    assert whole.loc["ties-ref", "accuracy"] == 1.0
    assert whole.loc["Ties", ["n_examples", "n_excluded"]].tolist() == [1, 1]
    assert np.isnan(whole.loc["ties-preferred", "accuracy"]) and np.isnan(whole.loc["Ties", "accuracy"])


def test_both_forms_of_a_prompt_of_ties_are_one_problem():
    examples = [example("Ties", name, 2, 1) for name in ("ref:1", "tied:1", "tied:2", "ref:12")]
    assert prompt_clusters(examples).tolist() == [0, 0, 1, 2]


def test_the_margins_of_ties_are_listed_by_prompt():
    examples = [example("Ties", "tied:4", 2, 1), example("Ties", "ref:4", 1, 1), example("Ties", "ref:5", 1, 1)]
    frame = ties_margins(examples, [np.array([[5.0, 3, 1]]), np.array([[2.0, 4]]), np.array([[0.0, 1]])])
    assert frame.to_dict("records") == [{"run": 0, "prompt": "4", "spread": 2.0, "lead_tied": 2.0, "lead_ref": -2.0}]


def by_hand(rewards: np.ndarray) -> dict[str, float]:
    """Easy, normal and hard of (rows, 6) rewards, comparison by comparison in float64."""
    right = {"easy": 0, "normal": 0, "hard": 0}
    for row in rewards:
        for i in range(3):
            for j in range(3):
                kind = "hard" if i < j else "normal" if i == j else "easy"
                right[kind] += row[i] > row[3 + j]
    return {kind: n / (3 * len(rewards)) for kind, n in right.items()}


def test_rm_bench_equals_a_count_of_its_comparisons_on_200_random_tables():
    """No package has RM-Bench's function, so the count is written out here; rewards of few values, so that many tie."""
    rng = np.random.default_rng(3)
    domains = ("chat", "math", "code", "safety-refuse", "safety-response")
    names = [domains[i] for i in [*range(5), *rng.integers(0, 5, 7)]]
    rewards = rng.integers(0, 5, (N_TABLES, len(names), 6)).astype(float)
    examples = [six(name, i) for i, name in enumerate(names)]
    ours = values_of(RM_BENCH, examples, list(rewards.swapaxes(0, 1)))
    for run, values in ours.iterrows():
        groups: dict[str, list[np.ndarray]] = {"chat": [], "math": [], "code": [], "safety": []}
        for name, row in zip(names, rewards[run], strict=True):
            groups[name.partition("-")[0]].append(row)
        each = {name: by_hand(np.array(rows)) for name, rows in groups.items()}
        for name, kinds in each.items():
            assert values["section", name] == pytest.approx(sum(kinds.values()) / 3, abs=1e-12)
            for kind in kinds:
                assert values["subset", f"{name} {kind}"] == pytest.approx(kinds[kind], abs=1e-12)
        for kind in ("easy", "normal", "hard"):
            assert values["style", kind] == pytest.approx(sum(k[kind] for k in each.values()) / 4, abs=1e-12)
        score = sum(sum(kinds.values()) / 3 for kinds in each.values()) / 4
        assert values["overall", "score"] == pytest.approx(score, abs=1e-12)


def test_the_matrix_of_rm_bench_by_hand():
    # The concise right response beats the concise wrong one alone, the plain one none, the marked-up one all; a tie is
    # wrong.
    values = found(RM_BENCH, [six("chat", 1)], [[2, 0, 9, 1, 2, 3]])["value"]
    matrix = [[values["cell", cell_name(i, j)] for j in range(3)] for i in range(3)]
    assert matrix == [[1, 0, 0], [0, 0, 0], [1, 1, 1]]
    assert [values["style", name] for name in ("easy", "normal", "hard")] == pytest.approx([2 / 3, 2 / 3, 0])
    assert values["section", "chat"] == values["overall", "score"] == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert [difficulty(*cell) for cell in CELLS] == [
        "normal", "hard", "hard", "easy", "normal", "hard", "easy", "easy", "normal",
    ]  # fmt: skip


def test_rm_bench_of_some_domains_is_the_mean_of_those():
    values = found(RM_BENCH, [six("chat", 1), six("code", 1)], [[1] * 3 + [0] * 3, [0] * 3 + [1] * 3])["value"]
    assert values["overall", "score"] == values["style", "hard"] == 0.5
    assert np.isnan(values["section", "math"]) and np.isnan(values["section", "safety"])


def test_a_row_of_rm_bench_with_one_response_too_long_is_excluded_from_all_nine_comparisons():
    whole = full(RM_BENCH, [six("chat", 1), six("chat", 2)], [[1, 1, 1, 0, 0, 0], [NAN, 1, 1, 0, 0, 0]])
    assert set(whole["n_examples"]) <= {0, 1} and whole.loc["score", ["n_examples", "n_excluded"]].tolist() == [1, 1]
    assert whole.loc["hard", "accuracy"] == 1.0


def test_rm_bench_with_all_candidates_tied_has_no_right_comparison():
    whole = full(RM_BENCH, [six("math", 1)], [[0.5] * 6])
    assert whole.loc["score", ["accuracy", "tie_rate", "n_ties"]].tolist() == pytest.approx([0, 1, 1])


def test_the_responses_of_rm_bench_are_found_by_their_ids():
    turned = six("chat", 1)._replace(responses=tuple(reversed(six("chat", 1).responses)))
    values = found(RM_BENCH, [turned], [[3, 2, 1, 9, 0, 2]])["value"]
    assert [values["style", name] for name in ("easy", "normal", "hard")] == pytest.approx([2 / 3, 2 / 3, 0])


def test_judge_bench_is_the_share_of_right_rows_by_family_on_200_random_tables():
    """No package has JudgeBench's function, so the count is written out: a decision is right if it is the label."""
    rng = np.random.default_rng(4)
    sources = ("mmlu-pro-law", "mmlu-pro-computer science", "livebench-reasoning", "livebench-math", "livecodebench")
    names = [sources[i] for i in [*range(5), *rng.integers(0, 5, 15)]]
    rewards = rng.integers(0, 3, (N_TABLES, len(names), 2)).astype(float)
    examples = [pair(name, str(i)) for i, name in enumerate(names)]
    ours = values_of(JUDGE_BENCH, examples, list(rewards.swapaxes(0, 1)))
    for run, values in ours.iterrows():
        right = [chosen > rejected for chosen, rejected in rewards[run]]
        assert values["overall", "score"] == pytest.approx(sum(right) / len(right), abs=1e-12)
        of_family = [ok for ok, name in zip(right, names, strict=True) if name.startswith("mmlu-pro")]
        assert values["section", "mmlu-pro"] == pytest.approx(sum(of_family) / len(of_family), abs=1e-12)


def test_reward_bench_equals_the_published_function_on_200_random_tables():
    reference = published("calculate_scores_per_section")["calculate_scores_per_section"]
    rng = np.random.default_rng(5)
    names = {"Chat": "chat", "Chat Hard": "chat-hard", "Safety": "safety", "Reasoning": "reasoning"}
    mapping = {title: SECTIONS[name] for title, name in names.items()}
    examples = [pair(subset, str(i)) for subset in SUBSET_WEIGHTS for i in range(3)]
    rewards = rng.integers(0, 3, (N_TABLES, len(examples), 2)).astype(float)
    ours = values_of(REWARD_BENCH, examples, list(rewards.swapaxes(0, 1)))
    for run, values in ours.iterrows():
        right = pd.Series(rewards[run, :, 0] > rewards[run, :, 1]).groupby([e.subset for e in examples]).mean()
        expected = reference(SUBSET_WEIGHTS, mapping, right.to_dict())
        for title, name in names.items():
            assert values["section", name] == pytest.approx(expected[title], abs=1e-12)
        assert values["overall", "score"] == pytest.approx(sum(expected.values()) / 4, abs=1e-12)


def test_plain_accuracy_of_several_right_candidates_asks_that_the_best_one_is_right():
    rows = [[0, 5, 1], [5, 0, 1], [5, 5, 1], [2, 2, 1], [3, 1, 3]]
    examples = [
        Example(str(i), "ab"[i % 2], (Message("user", str(i)),), (("0", "a"), ("1", "b"), ("2", "c")), ("0", "2"))
        for i in range(5)
    ]
    whole = full(PLAIN, examples, rows)
    # Right: rows 1 and 4. The best of rows 2 and 3 is tied with a wrong one.
    assert whole.loc["score", ["accuracy", "n_ties", "n_examples"]].tolist() == [0.4, 2, 5]
    assert whole.loc["a", "accuracy"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda each: each.name)
def test_a_benchmarks_parts_are_those_that_published_rows_may_have(benchmark):
    assert tuple(benchmark.columns.values()) == PARTS.get(benchmark.name, ())
    assert of_columns(benchmark.columns) is of_sections(benchmark.sections) is benchmark


DATA = {
    REWARD_BENCH.name: [pair(subset, str(i)) for subset in SUBSET_WEIGHTS for i in range(2)],
    RM_BENCH.name: [six(name, i) for name in ("chat", "math", "code", "safety-refuse") for i in range(2)],
    REWARD_BENCH_2.name: [
        *(example(name, str(i), 1, 3) for name in PARTS["reward-bench-2"][:5] for i in range(2)),
        *(example("Ties", f"{form}:{i}", 1 + (form == "tied"), 2) for form in ("ref", "tied") for i in range(2)),
    ],
    JUDGE_BENCH.name: [pair(name, str(i)) for name in (*PARTS["judge-bench"][1:], "mmlu-pro-law") for i in range(2)],
    PLAIN.name: [pair("mine", str(i)) for i in range(4)],
}


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda each: each.name)
def test_the_study_weighs_a_benchmark_as_its_table_does(benchmark):
    examples = DATA[benchmark.name]
    rng = np.random.default_rng(6)
    rewards = [rng.integers(0, 4, (1, len(e.responses))).astype(float) for e in examples]
    values = table(benchmark, examples, rewards).set_index(["level", "name"])["value"]
    rows, answers = rows_of(examples), benchmark.judge(examples, rewards).values[0]
    assert [name for _, name in rows.levels] == ["score", *benchmark.columns.values()]
    for level, weights in zip(rows.levels, rows.weights, strict=True):
        assert answers @ weights == pytest.approx(values[level], abs=1e-12)
        assert weights.sum() == pytest.approx(1, abs=0.0101)
        for stratum in np.unique(rows.subset):
            assert len(set(weights[rows.subset == stratum])) == 1


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda each: each.name)
def test_a_table_tells_its_benchmark(benchmark):
    examples = DATA[benchmark.name]
    rewards = [np.arange(2.0 * len(e.responses)).reshape(2, -1) for e in examples]
    runs = pd.DataFrame({"pair_id": ["p", "q"], "reward": "sum"})
    frame = measured(runs, benchmark.judge(examples, rewards), benchmark.layout(examples))
    assert of_table(frame) is benchmark
    assert frame["pair_id"].tolist() == sorted(frame["pair_id"])
    whole = frame[frame["level"] == "overall"]
    assert whole["n_examples"].tolist() == [len(examples)] * 2
    known = frame.dropna(subset=["low"])
    assert (known["low"] <= known["accuracy"] + 1e-12).all() and (known["accuracy"] <= known["high"] + 1e-12).all()
