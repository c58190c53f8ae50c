"""Routers: what they know, what they learnt, what a model's likelihoods say; the confusion by hand."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from plain import plain_logps
from transformers import AutoModelForCausalLM

from bench.prefer import route
from bench.registry import load_registry
from bench.schema import ROUTES, Dataset, Example, Message, UsageError
from bench.scoring.passes import Work, make_ready
from bench.scoring.render import render
from bench.scoring.scorer import Scorer
from bench.verbs.route import routes
from bench.verbs.session import open_session

DOMAINS = load_registry().domains
ROOT = Path(__file__).parents[2]


def data(*rows: tuple[str, str]) -> Dataset:
    examples = tuple(Example(f"{s}/{i}", s, (Message("user", q),), ()) for i, (s, q) in enumerate(rows))
    return Dataset("rows", "rows", "0", examples)


def test_the_known_section_is_what_the_domains_name():
    found = route.by_section(
        data(("hep-go", "x"), ("math-prm", "x"), ("xstest-should-respond", "x"), ("b", "x")), DOMAINS
    )
    assert tuple(found) == ROUTES
    assert found["domain"].tolist() == ["code", "maths", "safety", "chat"]
    assert found["confidence"].tolist() == [1, 1, 1, 0]


def test_the_known_section_of_other_data_is_refused():
    with pytest.raises(UsageError, match="rows: no domain lists any of its subsets"):
        route.by_section(data(("b", "x")), DOMAINS)


def test_the_classifier_sends_noise_to_chat_and_a_program_to_code():
    found = route.by_classifier(data(("", "qqzz xxvv"), ("", "Write a Python function that sorts a list.")), DOMAINS)
    assert found["domain"].tolist() == ["chat", "code"]
    assert found["confidence"][0] < 0.5 < 0.9 < found["confidence"][1]


def test_a_users_domain_is_learnt_from_its_entry(tmp_path):
    (tmp_path / "domains.toml").write_text(
        '[[domains]]\ndomain_id = "tax"\ndescription = "taxes"\nturn = "user"\ninstruction = "Cite the law."\n'
        'queries = ["Which tax is due on an inheritance?", "When must I file my income tax return?"]\n'
        '[[domains.exemplars]]\nprinciple = "p"\nuser = "Is a gift taxed?"\ngood = "g"\nbad = "b"\nexplanation = "e"\n'
    )
    found = route.by_classifier(
        data(("", "How is income tax on an inheritance filed?")), load_registry(tmp_path).domains
    )
    assert found["domain"].tolist() == ["tax"]


@pytest.fixture(scope="module")
def classified(reward_bench) -> tuple[pd.DataFrame, Dataset]:
    rows = Dataset("reward-bench", "reward-bench", "0", reward_bench)
    return route.by_classifier(rows, DOMAINS), rows


def test_the_classifier_finds_rewardbenchs_sections(classified):
    found = route.confusion(*classified, DOMAINS).set_index("known")
    assert found.loc[["chat", "safety", "reasoning"], ["chat", "safety", "reasoning"]].sum().sum() == 2985
    assert found.loc["macro", "recall"] >= 0.8
    assert found.loc[["chat", "safety", "reasoning"], "recall"].min() >= 0.7


def test_the_classifier_has_seen_no_row_of_rewardbench(reward_bench):
    learnt = {" ".join(q.lower().split()) for domain in DOMAINS.values() for q in route.labelled_queries(domain)}
    assert not learnt & {" ".join(message.content.lower().split()) for row in reward_bench for message in row.messages}


def test_the_confusion_in_the_docs_is_the_classifiers(classified):
    page = (ROOT / "docs/guides/customise.md").read_text(encoding="utf-8")
    # Comments beside a number say where it comes from.
    text = re.sub(r"<!--.*?-->", "", page)
    for row in route.confusion(*classified, DOMAINS).dropna().itertuples():
        line = rf"\| {row.known} \| {row.chat} \| {row.safety} \| {row.reasoning} \| {100 * row.recall:.1f} \|"
        assert re.search(line, text), line


def test_the_confusion_by_hand():
    rows = data(("math-prm", "a"), ("hep-go", "b"), ("donotanswer", "c"), ("llmbar-natural", "d"), ("other", "e"))
    ids = [row.example_id for row in rows.examples]
    table = pd.DataFrame({"example_id": ids, "domain": ["code", "chat", "safety", "chat", "maths"], "confidence": 1.0})
    found = route.confusion(table, rows, DOMAINS).set_index("known")
    assert found.loc["reasoning", ["chat", "safety", "reasoning"]].tolist() == [1, 0, 1]
    assert found["recall"].to_dict() == {"chat": 1.0, "safety": 1.0, "reasoning": 0.5, "macro": pytest.approx(5 / 6)}


def scores(**rows: dict[str, float]) -> pd.DataFrame:
    lines = [(row, name, logp, 0.0, "ok") for row, names in rows.items() for name, logp in names.items()]
    return pd.DataFrame(lines, columns=["example_id", "response_id", "logp_sum_nats", "logp_end_nats", "status"])


def test_a_models_bias_for_a_name_is_taken_off():
    domains = {name: DOMAINS[name] for name in ("chat", "code")}
    table = scores(neutral={"chat": -1.0, "code": -5.0}, a={"chat": -2.0, "code": -3.0}, b={"chat": -1.0, "code": -6.0})
    found = route.by_model(table, domains)
    # a: chat -1, code +2 beyond the neutral query; b: chat 0, code -1.
    assert found["domain"].tolist() == ["code", "chat"]
    assert found["confidence"].tolist() == pytest.approx([1 / (1 + np.exp(-3)), 1 / (1 + np.exp(-1))], abs=1e-6)


def test_a_row_called_neutral_is_routed_as_any_other():
    rows = Dataset("rows", "rows", "0", (Example("neutral", "", (Message("user", "q"),), ()),))
    asked = [example.example_id for example in route.questions(rows, DOMAINS).examples]
    assert len(set(asked)) == 2 and asked[1] == "neutral"
    domains = {name: DOMAINS[name] for name in ("chat", "code")}
    same = {"chat": -1.0, "code": -5.0}
    found = route.by_model(scores(**{asked[0]: same, "neutral": {"chat": -2.0, "code": -3.0}}), domains)
    assert found["example_id"].tolist() == ["neutral"] and found["domain"].tolist() == ["code"]


def test_a_query_longer_than_the_context_is_chat():
    domains = {name: DOMAINS[name] for name in ("safety", "chat", "maths", "code")}
    lost = {name: float("nan") for name in domains}
    found = route.by_model(scores(neutral=dict.fromkeys(domains, -1.0), a=lost), domains)
    assert found[["domain", "confidence"]].values.tolist() == [["chat", 0.25]]


def test_the_model_router_is_a_softmax_over_plain_likelihoods(tiny_registry, tmp_path):
    session = open_session(load_registry(tiny_registry), dtype="fp32", device="cpu", results=tmp_path)
    registry, options = session.registry, session.options
    rows = data(("s", "Is 7 prime?"), ("s", "Say hello."))
    found = routes(session, rows, "model", model_id="tiny-strong")
    spec = registry.model("tiny-strong")
    asked = route.questions(rows, registry.domains)
    scorer = Scorer(make_ready(Work(spec, spec, asked), options), options)
    model = AutoModelForCausalLM.from_pretrained(tiny_registry / "strong").eval()
    sums = {}
    for sequence in render(asked.examples, scorer.tokenizer, scorer.template).sequences:
        sums[sequence.example_id, sequence.response_id] = plain_logps(model, sequence.ids, sequence.start).sum()
    for row in found.itertuples():
        lift = np.array([sums[row.example_id, name] - sums["neutral", name] for name in registry.domains])
        shares = np.exp(lift - lift.max()) / np.exp(lift - lift.max()).sum()
        assert row.confidence == pytest.approx(shares.max(), abs=1e-3)
        sure = shares.max() >= route.MIN_CONFIDENCE
        assert row.domain == (list(registry.domains)[shares.argmax()] if sure else "chat")
