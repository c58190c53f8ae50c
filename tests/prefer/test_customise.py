"""Blocks before the query: what they hold, where they stand, what they hang on, what they cost."""

from collections import Counter
from types import MappingProxyType

import numpy as np
import pytest
from chat_templates import CHATML, GEMMA
from plain import plain_logps
from tiny_tokenizers import byte_level
from transformers import AutoModelForCausalLM

from bench.data.load import digest
from bench.entries import Domain
from bench.prefer import customise
from bench.registry import load_registry
from bench.schema import Dataset, Example, Message
from bench.scoring import passes, run
from bench.scoring.forward import trie
from bench.scoring.render import Template, render
from bench.scoring.scorer import Scorer
from bench.store.folder import Store

DOMAINS = load_registry().domains
ROWS = tuple(
    Example(f"s/{i}", "s", (Message("user", f"Is {i} prime?"),), (("chosen", f"yes {i}"), ("rejected", "no")))
    for i in range(40)
)
DATA = Dataset("rows", "rows", digest(ROWS), ROWS)


def told(variant: str, domain: str = "maths", *, domains=DOMAINS, seed: int = 0) -> Dataset:
    return customise.customised(DATA, domains, [(row.example_id, domain) for row in ROWS], variant=variant, seed=seed)


def changed(domain: str, **fields: object) -> MappingProxyType:
    entry = DOMAINS[domain].model_dump() | fields
    return MappingProxyType(DOMAINS | {domain: Domain.model_validate(entry)})


def test_each_variant_holds_what_its_name_says():
    maths = DOMAINS["maths"]
    texts = {variant: told(variant).examples[0].messages[0].content for variant in customise.VARIANTS}
    written = customise.drawn([customise.written(e) for e in maths.exemplars], "s/0", seed=0)
    (exemplar,) = (e for e in maths.exemplars if customise.written(e) == written)
    assert texts["instruction"] == maths.instruction
    parts = [exemplar.principle, exemplar.user, exemplar.good, exemplar.bad, exemplar.explanation]
    places = [texts["exemplars"].index(part) for part in parts]
    assert places == sorted(places) and maths.instruction not in texts["exemplars"]
    assert texts["both"] == f"{texts['instruction']}\n\n{texts['exemplars']}"


def test_the_draw_hangs_on_the_rows_id_and_the_seed_alone():
    rows = told("exemplars").examples
    alone = customise.customised(
        DATA._replace(examples=ROWS[7:8]), DOMAINS, [("s/7", "maths")], variant="exemplars", seed=0
    )
    assert alone.examples[0] == rows[7]
    blocks = Counter(row.messages[0].content for row in rows)
    assert set(blocks) == set(customise.blocks(DOMAINS, "maths", variant="exemplars"))
    assert max(blocks.values()) < 20
    assert [row.messages[0] for row in told("exemplars", seed=1).examples] != [row.messages[0] for row in rows]


def test_a_domain_draws_from_its_parts_too_and_a_part_from_itself_alone():
    assert len(customise.pool(DOMAINS, "reasoning")) == sum(
        len(DOMAINS[name].exemplars) for name in ("reasoning", "maths", "code")
    )
    assert customise.pool(DOMAINS, "code") == list(DOMAINS["code"].exemplars)


@pytest.mark.parametrize(
    ("turn", "before", "after"),
    [
        ("system", [("user", "q")], [("system", "B"), ("user", "q")]),
        ("system", [("system", "s"), ("user", "q")], [("system", "B\n\ns"), ("user", "q")]),
        ("system", [("system", ""), ("user", "q")], [("system", "B"), ("user", "q")]),
        (
            "system",
            [("user", "q"), ("assistant", "a"), ("system", "s"), ("user", "r")],
            [("system", "B"), ("user", "q"), ("assistant", "a"), ("system", "s"), ("user", "r")],
        ),
        ("user", [("user", "q")], [("user", "B\n\nq")]),
        ("user", [("system", "s"), ("user", "q")], [("system", "s"), ("user", "B\n\nq")]),
        (
            "user",
            [("user", "q"), ("assistant", "a"), ("user", "r")],
            [("user", "B\n\nq"), ("assistant", "a"), ("user", "r")],
        ),
    ],
)
def test_the_block_stands_at_the_head_of_its_turn(turn, before, after):
    got = customise.under(tuple(Message(*turn) for turn in before), "B", turn=turn)
    assert [tuple(message) for message in got] == after


def test_a_template_without_a_system_role_puts_the_block_into_the_first_user_turn():
    tokenizer = byte_level(bos="<bos>", adds_bos=True, eos="<eos>", special=["<start_of_turn>", "<end_of_turn>"])
    tokenizer.chat_template = GEMMA
    row = told("both").examples[0]
    block, query = (message.content for message in row.messages)
    text = Template(tokenizer).text(row.messages, generation=True)
    assert text == f"<start_of_turn>user\n{block}\n\n{query}<end_of_turn>\n<start_of_turn>model\n"


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"variant": "both"},
        {"domains": changed("maths", instruction="Be right.")},
        {"domains": changed("maths", turn="user")},
        # No row is of this domain, but it could have been: the key names all that the customisation could write.
        {"domains": changed("safety", instruction="Be kind.")},
    ],
    ids=["seed", "variant", "text", "turn", "another domain's text"],
)
def test_whatever_changes_a_block_changes_the_score_key(other, tiny_registry):
    spec = load_registry(tiny_registry).model("tiny-strong")
    first, second = (
        passes.make_ready(passes.Work(spec, spec, data), passes.resolved(dtype="fp32", device="cpu")).key
        for data in (told("instruction"), told(**{"variant": "instruction"} | other))
    )
    assert first != second and (first.domain, first.domain_digest) != (second.domain, second.domain_digest)


def test_customised_scores_are_the_plain_loops_over_the_whole_text(tiny_registry, tmp_path):
    spec, options = load_registry(tiny_registry).model("tiny-strong"), passes.resolved(dtype="fp32", device="cpu")
    data = told("instruction", "code")
    work = passes.make_ready(passes.Work(spec, spec, data._replace(examples=data.examples[:3])), options)
    scores = run.score_missing(work, Store(tmp_path), options).read().set_index(["example_id", "response_id"])
    scorer = Scorer(work, options)
    model = AutoModelForCausalLM.from_pretrained(tiny_registry / "strong").eval()
    for row in data.examples[:3]:
        head = f"<|im_start|>system\n{DOMAINS['code'].instruction}<|im_end|>\n<|im_start|>user\n"
        head += f"{row.messages[1].content}<|im_end|>\n<|im_start|>assistant\n"
        for response_id, text in row.responses:
            prompt, answer = (scorer.tokenizer(x, add_special_tokens=False).input_ids for x in (head, text))
            ids = np.array([*prompt, *answer, scorer.tokenizer.convert_tokens_to_ids("<|im_end|>")])
            logps = plain_logps(model, ids, len(prompt))
            stored = scores.loc[row.example_id, response_id]
            assert stored["logp_sum_nats"] == pytest.approx(logps[:-1].sum(), abs=1e-3)
            assert stored["logp_end_nats"] == pytest.approx(logps[-1], abs=1e-3)


def test_rows_in_any_order_compute_each_block_once():
    tokenizer = byte_level(eos="<|im_end|>", special=["<|im_start|>"])
    tokenizer.chat_template = CHATML
    rows = render(told("both").examples, tokenizer, Template(tokenizer)).sequences
    by_row = [rows[i : i + 2] for i in range(0, len(rows), 2)]
    parts = passes.cut_parts(by_row, part_tokens=16_000)
    assert sorted(i for part in parts for i in part) == list(range(len(ROWS)))
    steps = [[s for i in part for s in by_row[i]] for part in parts]
    computed = sum(trie.pack([s.ids for s in p], [s.start for s in p], budget=1024).n_computed for p in steps)
    unique = trie.pack([s.ids for s in rows], [s.start for s in rows], budget=10**6).n_computed
    assert computed <= 1.05 * unique
    assert unique < 0.25 * sum(len(s.ids) for s in rows)
