"""The verb `judge`: compares a policy before and after tuning by the rewards of its responses to held-out prompts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from bench.data.load import digest
from bench.files import read_csv, safe_name, write_csv, write_json, write_whole
from bench.schema import Dataset, UsageError
from bench.scoring import fetch
from bench.store.places import Place, manifest, stored_manifest
from bench.study.design import prompt_clusters
from bench.study.judging import AFTER, BEFORE, JUDGED, judge
from bench.study.measure import read_for
from bench.study.reward import rewards
from bench.subject import Subject
from bench.units import tally
from bench.verbs.sample import sample_candidates
from bench.verbs.score import checked_scores
from bench.verbs.session import Session, for_reward
from bench.verbs.tune import curves

if TYPE_CHECKING:
    from bench.prefer.resumed import Sampling

PER_BYTE = "per-byte"

Texts = Mapping[str, Mapping[str, list[str]]]
"""side -> prompt_id -> responses."""

SUBJECT = "judge"
"""What the manifest of such a folder has as its subject."""

FILES = ("judge.csv", "judge.md", "manifest.json", "figures")
"""What the verb writes beside the responses."""


class Judging(NamedTuple):
    """What `judge_policies` compares, and how."""

    before: str
    """The policy before tuning: a model_id or a folder."""
    after: str
    """The policy after tuning: a model_id or a folder."""
    annotator: Subject | None
    """The pair that labelled the preferences that the policy was tuned on."""
    others: Sequence[Subject]
    """Pairs that labelled none of them."""
    sampling: "Sampling"
    reward: str


def judge_policies(session: Session, prompts: Dataset, wish: Judging, *, out: Path) -> pd.DataFrame:
    """Sample responses of both policies, score them under each pair, and write judge.csv, judge.md and a figure.

    Returns:
        JUDGED.

    Raises:
        UsageError: There is no such policy, or `out` has a file of somebody else's; then nothing is sampled. Or all
            responses are empty.
        PreconditionError: A policy's files are not here and cannot be fetched. Nothing is sampled then.
    """
    from bench.prefer.resumed import candidates, ended, sampled_id, whole_lines

    _check_folder(out)
    for spec in [session.registry.policy(name) for name in (wish.before, wish.after)]:
        fetch.fetch(spec)
    texts, reasons = {}, {}
    for side, name in ((BEFORE, wish.before), (AFTER, wish.after)):
        path = out / f"{side}.jsonl"
        sample_candidates(session, prompts, name, wish.sampling._replace(keep_empty=True), out=path)
        lines = list(whole_lines(path))
        texts[side], reasons[side] = {sampled_id(line): candidates(line) for line in lines}, ended(lines)
    dataset = _responses(prompts, texts, slug=f"{prompts.slug}-{safe_name(out.name)}-judged")
    problems = dict(zip([e.example_id for e in prompts.examples], prompt_clusters(prompts.examples), strict=True))
    rows: list[list] = []
    sets = {}
    for subject in [*([wish.annotator] if wish.annotator else []), *wish.others]:
        pair_id = subject.pairs[0].pair_id
        sets[pair_id] = checked_scores(for_reward(session, wish.reward), subject, dataset)
        frames, mine = [read_for(s, wish.reward) for s in sets[pair_id]], "yes" if subject is wish.annotator else "no"
        # A sum grows with the length of the response, so the table has the reward of one byte too.
        for reward in dict.fromkeys((wish.reward, PER_BYTE)):
            table = rewards(*frames, reward=reward).rename(columns={"example_id": "prompt_id"})
            table["side"] = table["response_id"].str.partition("-")[0]
            # The lengths are the same for every pair, so only the first one's are kept.
            rows += [[pair_id, mine, reward, *r] for r in judge(table, texts, problems) if not rows or r[0] != "bytes"]
    found = pd.DataFrame(rows, columns=list(JUDGED))
    _write(out, found, wish, dataset, sets, reasons)
    return found


def _check_folder(out: Path) -> None:
    """Refuses a folder with files that this verb would replace but did not write."""
    # A run that was stopped while it wrote its tables has the settings of its responses, but no manifest.
    ours = stored_manifest(out).get("subject") == SUBJECT or (out / f"{BEFORE}.jsonl.settings.json").exists()
    found = [name for name in FILES if (out / name).exists()]
    if found and not ours:
        raise UsageError(f"{out}: drsow judge did not write its {found[0]}; name another folder")


def _responses(prompts: Dataset, texts: Texts, *, slug: str) -> Dataset:
    """Each prompt with the responses of both sides, "before-0" to "after-n"; empty responses are left out."""
    examples = []
    for example in prompts.examples:
        named = [
            (f"{side}-{number}", text)
            for side, by_prompt in texts.items()
            for number, text in enumerate(by_prompt[example.example_id])
            if text
        ]
        if named:
            examples.append(example._replace(responses=tuple(named)))
    if not examples:
        raise UsageError(f"{prompts.data_id}: both policies gave only empty responses, so there is nothing to compare")
    return Dataset(prompts.data_id, slug, digest(examples), tuple(examples))


def _write(
    out: Path, found: pd.DataFrame, wish: Judging, dataset: Dataset, sets: Mapping, reasons: Mapping[str, dict]
) -> None:
    write_csv(out / "judge.csv", found, JUDGED)
    write_whole(out / "judge.md", judged_table(found).encode())
    told = {"before": wish.before, "after": wish.after, "sampling": wish.sampling._asdict(), "reward": wish.reward}
    told |= {"finish_reasons": reasons}
    every = [each for both in sets.values() for each in both]
    write_json(out / "manifest.json", manifest(Place(SUBJECT, dataset), every) | told)
    curve = Path(wish.after) / "curve.csv"
    if curve.is_file():
        _draw(out, read_csv(curve), found)


def judged_table(found: pd.DataFrame) -> str:
    """JUDGED as a Markdown table, one line for each pair and measure."""
    lines = ["| pair | labelled the data | reward | measure | before | after | difference [95% interval] | prompts |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for row in found.to_dict("records"):
        numbers = "{before:.3g} | {after:.3g} | {difference:+.3g}".format_map(row)
        numbers += " [{low:+.3g}, {high:+.3g}]".format_map(row) if pd.notna(row["low"]) else ""
        names = "{pair_id} | {annotator} | {reward} | {measure}".format_map(row)
        lines.append(f"| {names} | {numbers} | {row['n_prompts']} |")
    first = found.iloc[0]
    lines += ["", f"Responses: {first.n_before} before ({first.n_empty_before} empty), {first.n_after} after "]
    lines[-1] += f"({first.n_empty_after} empty). A sum is in nats. "
    lines[-1] += "The difference of a win rate is its distance from 0.5."
    # All rows of a pair have the same count.
    if left_out := {pair: n for pair, n in zip(found["pair_id"], found["n_excluded"], strict=True) if n}:
        lines += [
            "",
            f"Responses left out, because they are too long or have a score that is not finite: {tally(left_out)}.",
        ]
    return "\n".join(lines) + "\n"


def _draw(out: Path, curve: pd.DataFrame, found: pd.DataFrame) -> None:
    """Draw the tuning's curve with the win rates at its last step."""
    from bench.study import figures

    last = curve["step"].max()
    points = []
    for row in found[(found["measure"] == "win_rate") & (found["reward"] == found["reward"].iloc[0])].itertuples():
        limits = (row.after, 0.5 + row.low, 0.5 + row.high)
        points += [(step, "win_rate", row.pair_id, *v) for step, v in ((0, (0.5,) * 3), (last, limits))]
    rates = pd.DataFrame(points, columns=["step", "measure", "series", "value", "low", "high"])
    counts = {"n_models": 2, "n_pairs": found["pair_id"].nunique(), "n_prompts": int(found["n_prompts"].max())}
    shown = pd.concat([curves(curve), rates], ignore_index=True)
    figure = figures.tuning(shown, **counts)
    for suffix in figures.FORMATS:
        write_whole(out / "figures" / f"tuning.{suffix}", figures.encode(figure, suffix))
    write_csv(out / "figures" / "tuning.csv", shown, tuple(shown.columns))
