"""Sampling: what a prompt's responses depend on, and what a stop leaves behind."""

import json

import pytest
import torch
from chat_templates import CHATML, GEMMA, MISTRAL
from tiny_models import save_tiny
from tiny_tokenizers import byte_level

from bench.data.load import load_candidates, load_prompts
from bench.prefer.asked import Speaker
from bench.prefer.respond import texts_of
from bench.prefer.resumed import Said, Sampling, ended, sampled_id, whole_lines
from bench.prefer.sample import sample_all
from bench.schema import DrsowError, Example, Message, UsageError
from bench.scoring import models
from bench.scoring.chat import Template

PROMPTS = [Example(str(i), "", (Message("user", f"Is {i} prime?"),), ()) for i in range(4)]
WISH = Sampling(n=3, max_new_tokens=6)


def speaker_of(model, tokenizer) -> Speaker:
    return Speaker(tokenizer, Template(tokenizer), model.config.max_position_embeddings)


def sample_prompt(model, tokenizer, example, wish) -> list[str]:
    """The responses to one prompt alone."""
    return [each.text for each in said_by(model, tokenizer, example, wish)]


def said_by(model, tokenizer, example, wish) -> list[Said]:
    speaker = speaker_of(model, tokenizer)
    return dict(texts_of(model, speaker, {example.example_id: speaker.head(example)}, wish))[example.example_id]


@pytest.fixture(scope="module")
def policy(tiny_registry):
    folder = tiny_registry / "strong"
    return models.load_policy(folder, dtype=torch.float32, device="cpu"), models.load_tokenizer(folder)


@pytest.fixture
def policy_with(tmp_path):
    """Makes a policy of a chat template, and with what its generation_config.json says."""

    def made(template: str, said: dict, tokenizer=None):
        chat = tokenizer or byte_level(eos="<|im_end|>", special=["<|im_start|>"])
        chat.chat_template = template
        folder = save_tiny(tmp_path / "policy", tokenizer=chat, seed=1)
        (folder / "generation_config.json").write_text(json.dumps(said))
        return models.load_policy(folder, dtype=torch.float32, device="cpu"), models.load_tokenizer(folder)

    return made


@pytest.mark.parametrize("said", [
    {"repetition_penalty": 1.8, "do_sample": True, "temperature": 0.1, "top_k": 1, "top_p": 0.2},
    {"min_p": 0.9, "typical_p": 0.2, "no_repeat_ngram_size": 1},
    {"num_beams": 3, "min_new_tokens": 6, "suppress_tokens": [300], "forced_eos_token_id": 40},
    {"bad_words_ids": [[65], [66]], "max_length": 3, "stop_strings": ["a"], "cache_implementation": "static"},
])  # fmt: skip
def test_of_a_generation_config_nothing_but_its_ends_is_used(policy, policy_with, said):
    plain, other = policy, policy_with(CHATML, said)
    wish = WISH._replace(max_new_tokens=20)
    assert sample_prompt(*other, PROMPTS[0], wish) == sample_prompt(*plain, PROMPTS[0], wish)
    assert {name: other[0].generation_config.to_dict()[name] for name in said} == said


def test_responses_end_where_a_generation_config_says(policy, policy_with):
    wish = WISH._replace(max_new_tokens=20)
    (said, *_) = sample_prompt(*policy, PROMPTS[0], wish)
    letter = next(letter for letter in said[1:] if letter.isascii() and letter.isalpha() and letter != said[0])
    other = policy_with(CHATML, {"eos_token_id": [354, policy[1].convert_tokens_to_ids(letter)]})
    ended, reason = said_by(*other, PROMPTS[0], wish)[0]
    assert letter not in ended
    assert said.startswith(ended) and reason == "stop"


@pytest.mark.parametrize("alone", ["", "planted"], ids=["in batches", "alone"])
@pytest.mark.parametrize(("logit", "reason"), [(1e4, "stop"), (-1e4, "length")], ids=["ends at once", "never ends"])
def test_a_response_without_its_end_is_marked_as_cut(policy, monkeypatch, logit, reason, alone):
    def steered(module, args, output):
        output.logits[..., end] = logit
        return output

    model, tokenizer = policy
    full, end = speaker_of(model, tokenizer), tokenizer.convert_tokens_to_ids("<|im_end|>")
    ids = full.head(PROMPTS[0])
    monkeypatch.setattr("bench.prefer.decode.fit", lambda model: alone)
    handle = model.register_forward_hook(steered)
    # WISH has six tokens, the second context three.
    for speaker in (full, full._replace(limit=len(ids) + 3)):
        assert [each.reason for each in dict(texts_of(model, speaker, {"0": ids}, WISH))["0"]] == [reason] * 3
    handle.remove()


def test_a_file_that_was_begun_without_reasons_is_continued_and_its_other_responses_are_marked(policy, tmp_path):
    out, partial = tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial"
    whole = sampled(policy, out)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [len(line["finish_reasons"]) for line in lines] == [len(line["candidates"]) for line in lines]
    before = [{name: line[name] for name in line if name != "finish_reasons"} for line in lines[:2]]
    out.unlink()
    partial.write_text("".join(json.dumps(line) + "\n" for line in before))
    assert sampled(policy, out) == whole
    assert [json.loads(line) for line in out.read_text().splitlines()] == [*before, *lines[2:]]
    assert sum(ended(whole_lines(out)).values()) == sum(len(line["candidates"]) for line in lines[2:])
    assert len(load_candidates(str(out)).examples) == 4


SYSTEM = Example("y", "", (Message("system", "no water"), Message("user", "Is it?")), ())


def test_a_system_turn_that_the_template_does_not_know_is_merged_as_in_a_run(policy_with, tmp_path, capsys):
    model = policy_with(GEMMA, {}, byte_level(bos="<bos>", adds_bos=True, eos="<eos>", special=["<end_of_turn>"]))
    found = sampled(model, tmp_path / "a.jsonl", [SYSTEM])
    merged = SYSTEM._replace(messages=(Message("user", "no water\n\nIs it?"),))
    assert found["y"] == [text for text in sample_prompt(*model, merged, WISH) if text]
    assert json.loads((tmp_path / "a.jsonl.settings.json").read_text())["n_system_merged"] == 1
    assert "1 prompts have a system turn" in capsys.readouterr().err


def test_a_prompt_that_the_template_refuses_is_named_and_nothing_is_written(policy_with, tmp_path):
    model = policy_with(MISTRAL, {}, byte_level(bos="<s>", adds_bos=True, eos="</s>"))
    bad = Example("bad", "", (Message("user", "a"), Message("user", "b")), ())
    with pytest.raises(UsageError, match=r"^bad: the chat template rejects it: turns must alternate"):
        sampled(model, tmp_path / "out" / "a.jsonl", [*PROMPTS, bad])
    assert not (tmp_path / "out").exists()


def test_a_prompt_with_a_token_beyond_the_embedding_is_named(policy_with):
    model, tokenizer = policy_with(CHATML, {})
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    with pytest.raises(DrsowError, match=r"^p: token '\[PAD\]' has id 356, but the embedding of the model ends at 355"):
        sample_prompt(model, tokenizer, Example("p", "", (Message("user", "a [PAD]"),), ()), WISH)
    # Padding of the tokenizer's own would be read by the embedding as well.
    assert len(sample_prompt(model, tokenizer, PROMPTS[0], WISH._replace(max_new_tokens=30))) == 3


def sampled(policy, out, prompts=PROMPTS, wish=WISH, **room: int) -> dict[str, list[str]]:
    model, tokenizer = policy
    speaker = Speaker(tokenizer, Template(tokenizer), 2048)
    sample_all(lambda: model, speaker, prompts, wish, out=out, facts={"model_id": "tiny"}, **room)
    return {row["id"]: row["candidates"] for row in map(json.loads, out.read_text().splitlines())}


def test_responses_depend_on_the_prompts_id_and_the_seed_alone(policy, tmp_path):
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


def passes(policy, out, prompts=PROMPTS, *, wish=WISH, at: int | None = None, **room: int) -> int:
    hook = Passes(at)
    handle = policy[0].base_model.register_forward_pre_hook(hook)
    try:
        sampled(policy, out, prompts, wish, **room)
    finally:
        handle.remove()
    return hook.n


def test_a_stopped_run_goes_on_and_ends_in_the_same_bytes(policy, tmp_path):
    # Room for one prompt at a time, so that the first two are done when the stop comes.
    one = {"cache_tokens": 1}
    whole = passes(policy, tmp_path / "whole.jsonl", **one)
    two = passes(policy, tmp_path / "two.jsonl", PROMPTS[:2], **one)
    out, partial = tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial"
    with pytest.raises(KeyboardInterrupt):
        passes(policy, out, at=two + 2, **one)
    # As if the stop had come in the middle of a line.
    partial.write_bytes(partial.read_bytes() + b'{"id": "2", "pro')
    assert not out.exists()
    n_check = 7  # the model's own two passes, one that reads, four steps
    assert passes(policy, out, **one) == whole - two + n_check
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not partial.exists()
    assert passes(policy, out) == 0


def test_a_run_stopped_in_the_middle_of_a_batch_ends_in_the_same_bytes(policy, tmp_path):
    many = [Example(str(i), "", (Message("user", f"Is {i} prime{'?' * i}"),), ()) for i in range(20)]
    wish = WISH._replace(n=8)
    n_passes, n_done = passes(policy, tmp_path / "whole.jsonl", many, wish=wish), 0
    for at in (n_passes // 2, n_passes // 3):
        with pytest.raises(KeyboardInterrupt):
            passes(policy, tmp_path / "out.jsonl", many, wish=wish, at=at)
        before, n_done = n_done, len((tmp_path / "out.jsonl.partial").read_bytes().splitlines())
        assert before <= n_done < 20
    sampled(policy, tmp_path / "out.jsonl", many, wish)
    assert n_done > 0
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


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
    with pytest.raises(UsageError, match=r"a\.jsonl was begun with other settings: temperature was 0\.\d, now 1\.0; "):
        sampled(policy, tmp_path / "a.jsonl", wish=WISH._replace(temperature=1.0))
    assert (tmp_path / "a.jsonl").read_bytes() == before


def test_a_prompt_without_room_is_named(policy):
    long = Example("long", "", (Message("user", "x" * 3000),), ())
    with pytest.raises(UsageError, match=r"long: the prompt has .* tokens, but the model reads at most 2,047"):
        sample_prompt(*policy, long, WISH)


def test_a_file_of_somebody_else_is_refused_and_stays(policy, tmp_path):
    out = tmp_path / "mine.jsonl"
    out.write_text("mine")
    with pytest.raises(UsageError, match=r"mine\.jsonl exists already"):
        sampled(policy, out)
    assert out.read_text() == "mine"


def test_empty_responses_go_unless_they_are_kept(policy, tmp_path, monkeypatch):
    said = [["", "a", "b"], ["", "", "c"], ["", "", ""], ["d", "e", "f"]]
    told = [[Said(text, "stop") for text in texts] for texts in said]
    monkeypatch.setattr("bench.prefer.sample.texts_of", lambda *_, **__: zip("0123", told, strict=True))
    dropped = sampled(policy, tmp_path / "a")
    assert dropped == {"0": ["a", "b"], "3": ["d", "e", "f"]}
    kept = sampled(policy, tmp_path / "b", wish=WISH._replace(keep_empty=True))
    assert kept == {"0": ["", "a", "b"], "1": ["", "", "c"], "2": ["", "", ""], "3": ["d", "e", "f"]}


def test_a_finished_file_needs_no_model(policy, tmp_path):
    before = sampled(policy, tmp_path / "a")
    assert sampled((None, policy[1]), tmp_path / "a") == before
