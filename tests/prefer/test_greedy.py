"""Greedy answers: they depend on the prompt alone, and a stop changes nothing."""

import json

import pytest
import torch
from chat_templates import CHATML
from tiny_models import save_tiny
from tiny_tokenizers import byte_level, sentence_piece

from bench.prefer import decode
from bench.prefer.asked import Speaker
from bench.prefer.greedy import answer_all
from bench.prefer.respond import texts_of
from bench.prefer.resumed import Sampling
from bench.schema import Example, Message, UsageError
from bench.scoring import models
from bench.scoring.chat import Template
from bench.scoring.render import prompt_ids

QUESTIONS = ("Is 7 prime?", "Name the two prime numbers.", "Water?", "Say no.", "Is no water yes?")
PROMPTS = [Example(str(i), "", (Message("user", text),), ()) for i, text in enumerate(QUESTIONS)]
SETTINGS = {"model_id": "tiny", "max_new_tokens": 12}


@pytest.fixture(scope="module")
def tiny(tiny_registry):
    folder = tiny_registry / "strong"
    tokenizer = models.load_tokenizer(folder)
    model = models.load_policy(folder, dtype=torch.float32, device="cpu")
    return model, Speaker(tokenizer, Template(tokenizer), 2048)


def heads(speaker, prompts=PROMPTS):
    return {e.example_id: prompt_ids(e, speaker.tokenizer, speaker.template) for e in prompts}


def answers_of(model, speaker, heads, *, n_new):
    wish = Sampling(n=1, temperature=0, max_new_tokens=n_new)
    return {name: said.text for name, (said,) in texts_of(model, speaker, heads, wish)}


def by_hand(model, speaker, ids, n_new):
    """The likeliest token again and again, each from a pass of its own."""
    end, new = speaker.tokenizer.convert_tokens_to_ids("<|im_end|>"), []
    with torch.no_grad():
        while len(new) < n_new and end not in new:
            new.append(int(model(torch.tensor([ids + new])).logits[0, -1].argmax()))
    return speaker.tokenizer.decode([token for token in new if token != end]).strip()


def test_an_answer_in_a_batch_is_the_likeliest_tokens_of_its_prompt_alone(tiny):
    model, speaker = tiny
    found = answers_of(model, speaker, heads(speaker), n_new=12)
    assert found == {name: by_hand(model, speaker, ids, 12) for name, ids in heads(speaker).items()}
    assert len(set(found.values())) > 1


class Stop:
    """A hook that stops the run, as Ctrl-C does, at a forward pass."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, module, inputs) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def test_a_run_that_was_stopped_and_lost_half_a_line_gives_the_answers_of_one_that_was_not(tiny, tmp_path):
    model, speaker = tiny
    whole = answer_all(lambda: model, speaker, PROMPTS, out=tmp_path / "a.jsonl", settings=SETTINGS)
    for n_passes in (3, 14, 20):
        handle = model.base_model.register_forward_pre_hook(Stop(n_passes))
        with pytest.raises(KeyboardInterrupt):
            answer_all(lambda: model, speaker, PROMPTS, out=tmp_path / "b.jsonl", settings=SETTINGS)
        handle.remove()
        partial = tmp_path / "b.jsonl.partial"
        partial.write_bytes(partial.read_bytes()[:-3])
    assert answer_all(lambda: model, speaker, PROMPTS, out=tmp_path / "b.jsonl", settings=SETTINGS) == whole
    assert (tmp_path / "b.jsonl").read_bytes() == (tmp_path / "a.jsonl").read_bytes()
    assert not (tmp_path / "b.jsonl.partial").exists()
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == ["0", "1", "2", "3", "4"]


def test_answers_that_are_there_load_no_model_and_those_of_other_settings_are_refused(tiny, tmp_path):
    model, speaker = tiny
    out = tmp_path / "a.jsonl"
    whole = answer_all(lambda: model, speaker, PROMPTS, out=out, settings=SETTINGS)
    assert answer_all(lambda: pytest.fail("loaded"), speaker, PROMPTS, out=out, settings=SETTINGS) == whole
    with pytest.raises(UsageError, match="begun with other settings"):
        answer_all(lambda: model, speaker, PROMPTS, out=out, settings=SETTINGS | {"max_new_tokens": 13})


def test_an_answer_ends_before_the_end_of_turn_that_another_models_template_writes(tmp_path, monkeypatch):
    # The model spells <|im_end|> in pieces; a hook makes it say a text.
    tokenizer, chat = sentence_piece(kind="first"), byte_level(eos="<|im_end|>", special=["<|im_start|>"])
    chat.chat_template = CHATML
    folder = save_tiny(tmp_path / "model", tokenizer=tokenizer, seed=3)
    model = models.load_policy(folder, dtype=torch.float32, device="cpu")
    tokenizer = models.load_tokenizer(folder)
    speaker = Speaker(tokenizer, Template(chat, "chat"), 2048)
    said = tokenizer("yes<|im_end|> no", add_special_tokens=False).input_ids

    def dictated(module, args, kwargs, output):
        step = kwargs["step"]
        places = [group.n_own + 1 for group in step.groups] if isinstance(step, decode.Together) else [0]
        output.logits = torch.zeros_like(output.logits)
        for row, place in enumerate(places):
            output.logits[0, row, said[min(place, len(said) - 1)]] = 1.0
        return output

    model.register_forward_hook(dictated, with_kwargs=True)
    monkeypatch.setattr(decode, "fit", lambda model: "")
    wish = Sampling(n=1, temperature=0, max_new_tokens=len(said))
    # It has all the tokens that it may have, but its end is among them.
    found = dict(texts_of(model, speaker, heads(speaker, PROMPTS[:2]), wish))
    assert found == {"0": [("yes", "stop")], "1": [("yes", "stop")]}


def test_a_prompt_that_fills_the_models_context_is_named(tiny, tmp_path):
    model, speaker = tiny
    with pytest.raises(UsageError, match=r"^0: the prompt has \d+ tokens, but the model reads at most 4"):
        answer_all(
            lambda: model, speaker._replace(limit=5), PROMPTS, out=tmp_path / "out" / "a.jsonl", settings=SETTINGS
        )
    assert not (tmp_path / "out").exists()
