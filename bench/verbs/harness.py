"""Writes a pair's evaluation as lm-evaluation-harness writes its results: `results_*.json` and `samples_*.jsonl`.

Each part of the benchmark is a task or a group of tasks with the metric `acc`. A response's `resps` entry holds its
reward in place of a log-likelihood: like the harness, the pair takes the candidate with the largest number. The
harness has no field for an interval, so the 95% limits are in the task's `metadata`.
"""

import hashlib
import json
import re
from collections import defaultdict
from pathlib import Path

from bench.files import safe_name, write_whole
from bench.verbs.evaluation import DIGITS, Evaluation, Judgement, Key, as_json, hub_data, hub_name, known, prompt_text

METRIC = "acc,none"
STDERR = "acc_stderr,none"
"""The harness's names of a metric without a filter, and of its standard error."""

TASK_BYTES = 180
"""Maximum length of a task's name. File systems allow 255 bytes, and a samples file's name has others around it."""


def write(evaluation: Evaluation, out: Path) -> list[Path]:
    """Write the results and the samples below a folder; return the files, the results first."""
    tasks = task_names(evaluation)
    samples = defaultdict(list)
    for judgement in evaluation.judgements:
        samples[judgement.leaf].append(sample(evaluation, judgement))
    folder = out / sanitized(model_name(evaluation))
    ended = evaluation.ended.strftime("%Y-%m-%dT%H-%M-%S.%f")
    files = {folder / f"results_{ended}.json": as_json(results(evaluation, tasks, samples), indent=2)}
    for leaf, rows in samples.items():
        lines = "".join(f"{as_json(row)}\n" for row in rows)
        files[folder / f"samples_{tasks[leaf]}_{ended}.jsonl"] = lines
    for path, text in reversed(files.items()):
        # The results are last: where they are, so are the samples.
        write_whole(path, text.encode())
    return list(files)


def model_name(evaluation: Evaluation) -> str:
    """The name under which results are compared: the pair's, and that of a reward other than `sum`."""
    return evaluation.pair.pair_id + (f"-{evaluation.reward}" if evaluation.reward != "sum" else "")


def sanitized(name: str) -> str:
    """A model's name as the harness writes it into a folder's name."""
    return re.sub(r"[\"<>:/|\\?*\[\]]+", "__", name)


def task_names(evaluation: Evaluation) -> dict[Key, str]:
    """The name of the task or group of each part, all different and safe in a file's name."""
    found: dict[Key, str] = {}
    for level, name in evaluation.inside:
        words = evaluation.dataset.slug + ("" if level == "overall" else f"_{name}")
        plain = re.sub(r"[^\w.-]+", "_", words)
        plain = plain if len(plain.encode()) <= TASK_BYTES else safe_name(plain)
        again = sum(1 for each in found.values() if each == plain or each.startswith(f"{plain}__"))
        found[level, name] = f"{plain}__{again + 1}" if again else plain
    return found


def results(evaluation: Evaluation, tasks: dict[Key, str], samples: dict[Key, list[dict]]) -> dict:
    """The content of the results file."""
    rows = {(row["level"], row["name"]): row for _, row in evaluation.parts.iterrows()}
    metrics = {}
    for key, task in tasks.items():
        stderr = known(rows[key], "stderr")
        counted = {"name": task, "alias": task, "sample_len": int(rows[key]["n_examples"])}
        metrics[task] = counted | {METRIC: float(rows[key]["accuracy"]), STDERR: "N/A" if stderr is None else stderr}
    groups = {tasks[key]: [tasks[each] for each in inner] for key, inner in evaluation.inside.items()}
    counts = {tasks[key]: (int(row["n_examples"]), int(row["n_excluded"])) for key, row in rows.items()}
    return {
        "results": metrics,
        "groups": {name: metrics[name] for name, inner in groups.items() if inner},
        "group_subtasks": groups,
        "configs": {tasks[key]: _task_config(evaluation, tasks[key], row) for key, row in rows.items()},
        "versions": dict.fromkeys(metrics, f"drsow {evaluation.version}"),
        "n-shot": dict.fromkeys(metrics, 0),
        "higher_is_better": {task: {"acc": True} for task in metrics},
        "n-samples": {task: {"original": n + left, "effective": n} for task, (n, left) in counts.items()},
        "config": _run_config(evaluation),
        "date": evaluation.ended.timestamp(),
        "task_hashes": {tasks[leaf]: _task_hash(rows) for leaf, rows in samples.items()},
        "model_source": "drsow",
        "model_name": model_name(evaluation),
        "model_name_sanitized": sanitized(model_name(evaluation)),
        "system_instruction": None,
        "system_instruction_sha": None,
        "fewshot_as_multiturn": False,
        "chat_template": None,
        "chat_template_sha": evaluation.keys[0].template_digest,
        "total_evaluation_time_seconds": str(sum(float(info.get("duration_s", 0)) for info in evaluation.infos)),
    }


def _task_config(evaluation: Evaluation, task: str, row: dict) -> dict:
    """The configuration of a task or group, with the interval of its accuracy."""
    limits = [known(row, "low"), known(row, "high")]
    metadata = {
        "version": evaluation.version,
        "level": row["level"],
        "reward": evaluation.reward,
        "interval_95": None if None in limits else limits,
        "data_sha256": evaluation.dataset.digest,
    }
    return {
        "task": task,
        "dataset_path": hub_data(evaluation.dataset) or evaluation.dataset.slug,
        "output_type": "multiple_choice",
        "num_fewshot": 0,
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": metadata,
    }


def _run_config(evaluation: Evaluation) -> dict:
    strong, weak = evaluation.models
    key, other = evaluation.keys
    sizes = [spec.n_params for spec in evaluation.models]
    arguments = {
        "pretrained": hub_name(strong),
        "revision": key.revision,
        "weak": hub_name(weak),
        "weak_revision": other.revision,
        "reward": evaluation.reward,
        "ops": key.ops,
    }
    size = {} if None in sizes else {"model_num_parameters": sum(filter(None, sizes))}
    return {
        "model": "drsow",
        "model_args": arguments,
        **size,
        "model_dtype": key.dtype,
        "model_revision": key.revision,
        "batch_size": None,
        "device": str(evaluation.infos[0].get("device", "")),
        "limit": evaluation.dataset.limit,
        "bootstrap_iters": 0,
        "gen_kwargs": None,
    }


def sample(evaluation: Evaluation, judgement: Judgement) -> dict:
    """The row of a samples file."""
    example = evaluation.example(judgement)
    prompt = prompt_text(example)
    right = [number for number, (name, _) in enumerate(example.responses) if name in example.right]
    target = str(right[0] if len(right) == 1 else right)
    document = {
        "example_id": example.example_id,
        "subset": example.subset,
        "messages": [message._asdict() for message in example.messages],
        "responses": dict(example.responses),
        "right": list(example.right),
    }
    answers = [[f"{reward:.{DIGITS}f}", "False"] for reward in judgement.rewards]
    return {
        "doc_id": judgement.place,
        "doc": document,
        "target": target,
        "arguments": {
            f"gen_args_{n}": {"arg_0": prompt, "arg_1": text} for n, (_, text) in enumerate(example.responses)
        },
        "resps": [[answer] for answer in answers],
        "filtered_resps": answers,
        "filter": "none",
        "metrics": ["acc"],
        "doc_hash": _sha256(json.dumps(document, indent=2, ensure_ascii=False)),
        "prompt_hash": _sha256(prompt),
        "target_hash": _sha256(target),
        "acc": judgement.value,
    }


def _task_hash(rows: list[dict]) -> str:
    """The hash that shows whether two results are of the same rows."""
    return _sha256("".join(row["doc_hash"] + row["prompt_hash"] + row["target_hash"] for row in rows))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
