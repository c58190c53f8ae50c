"""Sampling: what a prompt's responses hang on, and what a stop leaves behind."""

import json

import pytest
import torch

from bench.data import load_prompts
from bench.prefer.sample import Sampling, sample_all, sample_prompt, sampled_id
from bench.schema import Example, Message, UsageError
from bench.scoring import models

PROMPTS = [Example(str(i), "", (Message("user", f"Is {i} prime?"),), ()) for i in range(4)]
WISH = Sampling(n=3, max_new_tokens=6)


@pytest.fixture(scope="module")
def policy(tiny_registry):
    folder = tiny_registry / "strong"
    return models.load_policy(folder, dtype=torch.float32, device="cpu"), models.load_tokenizer(folder)


def sampled(policy, out, prompts=PROMPTS, wish=WISH) -> dict[str, list[str]]:
    model, tokenizer = policy
    sample_all(lambda: model, tokenizer, prompts, wish, out=out, facts={"model_id": "tiny"})
    return {row["id"]: row["candidates"] for row in map(json.loads, out.read_text().splitlines())}


def test_responses_hang_on_the_prompts_id_and_the_seed_alone(policy, tmp_path):
    torch.manual_seed(5)
    whole = sampled(policy, tmp_path / "a")
    before = torch.random.get_rng_state()
    turned = sampled(policy, tmp_path / "b", PROMPTS[::-1][:2])
    assert torch.equal(torch.random.get_rng_state(), before)
    assert turned == {name: whole[name] for name in turned}
    other = sampled(policy, tmp_path / "c", wish=WISH._replace(seed=1))
    assert all(other[name] != whole[name] for name in other)


class Passes:
    """A hook that counts forward passes and stops the run, as Ctrl-C does, at one of them."""

    def __init__(self, at: int | None = None) -> None:
        self.n, self.at = 0, at

    def __call__(self, module, inputs) -> None:
        self.n += 1
        if self.n == self.at:
            raise KeyboardInterrupt


def passes(policy, out, prompts=PROMPTS, *, wish=WISH, at: int | None = None) -> int:
    hook = Passes(at)
    handle = policy[0].base_model.register_forward_pre_hook(hook)
    try:
        sampled(policy, out, prompts, wish)
    finally:
        handle.remove()
    return hook.n


def test_a_stopped_run_goes_on_and_ends_in_the_same_bytes(policy, tmp_path):
    whole = passes(policy, tmp_path / "whole.jsonl")
    two = passes(policy, tmp_path / "two.jsonl", PROMPTS[:2])
    out, partial = tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial"
    with pytest.raises(KeyboardInterrupt):
        passes(policy, out, at=two + 2)
    # As if the stop had come in the middle of a line.
    partial.write_bytes(partial.read_bytes() + b'{"id": "2", "pro')
    assert not out.exists()
    assert passes(policy, out) == whole - two
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not partial.exists()
    assert passes(policy, out) == 0


def test_a_line_has_the_prompts_own_id_and_subset_and_gives_its_example_id_back(policy, tmp_path):
    rows = [{"id": "u1", "subset": "a/b"}, {"id": "b/u1", "subset": "a"}, {"id": 3, "subset": "a"}, {"id": "c/1"}]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row | {"prompt": "Is it so?"}) + "\n" for row in rows))
    prompts = load_prompts(str(path)).examples
    wish = WISH._replace(keep_empty=True)
    sampled(policy, tmp_path / "out.jsonl", prompts, wish)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [{name: line[name] for name in ("id", "subset") if name in line} for line in lines] == [
        row | {"id": str(row["id"])} for row in rows
    ]
    ids = [example.example_id for example in prompts]
    assert [sampled_id(line) for line in lines] == ids
    assert [example.example_id for example in load_prompts(str(tmp_path / "out.jsonl")).examples] == ids
    # A run that was stopped before its end finds each of its lines.
    (tmp_path / "out.jsonl").rename(tmp_path / "out.jsonl.partial")
    assert passes(policy, tmp_path / "out.jsonl", prompts, wish=wish) == 0


def test_other_settings_are_refused_and_the_file_stays(policy, tmp_path):
    sampled(policy, tmp_path / "a.jsonl")
    before = (tmp_path / "a.jsonl").read_bytes()
    with pytest.raises(UsageError, match=r"a\.jsonl: was begun with other settings, see a\.jsonl\.settings\.json"):
        sampled(policy, tmp_path / "a.jsonl", wish=WISH._replace(temperature=1.0))
    assert (tmp_path / "a.jsonl").read_bytes() == before


def test_a_policy_without_a_chat_template_is_refused_and_nothing_is_written(policy, tiny_registry, tmp_path):
    weak = models.load_tokenizer(tiny_registry / "weak")
    with pytest.raises(UsageError, match="has no chat template"):
        sample_all(lambda: policy[0], weak, PROMPTS, WISH, out=tmp_path / "out.jsonl", facts={})
    assert list(tmp_path.iterdir()) == []


def test_a_prompt_without_room_is_named(policy):
    long = Example("long", "", (Message("user", "x" * 3000),), ())
    with pytest.raises(UsageError, match=r"long: .* tokens, the model reads 2,048"):
        sample_prompt(*policy, long, WISH)


def test_a_file_of_somebody_else_is_refused_and_stays(policy, tmp_path):
    out = tmp_path / "mine.jsonl"
    out.write_text("mine")
    with pytest.raises(UsageError, match=r"mine\.jsonl: is there already"):
        sampled(policy, out)
    assert out.read_text() == "mine"


def test_empty_responses_go_unless_they_are_kept(policy, tmp_path, monkeypatch):
    said = iter([["", "a", "b"], ["", "", "c"], ["", "", ""], ["d", "e", "f"]] * 2)
    monkeypatch.setattr("bench.prefer.sample.sample_prompt", lambda *_: next(said))
    dropped = sampled(policy, tmp_path / "a")
    assert dropped == {"0": ["a", "b"], "3": ["d", "e", "f"]}
    kept = sampled(policy, tmp_path / "b", wish=WISH._replace(keep_empty=True))
    assert kept == {"0": ["", "a", "b"], "1": ["", "", "c"], "2": ["", "", ""], "3": ["d", "e", "f"]}


def test_a_finished_file_needs_no_model(policy, tmp_path):
    before = sampled(policy, tmp_path / "a")
    assert sampled((None, policy[1]), tmp_path / "a") == before
