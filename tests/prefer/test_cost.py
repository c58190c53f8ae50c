"""What a long block costs: a customised run of RewardBench rows beside the plain one, on a real model."""

import statistics

import pytest

from bench.data.load import REWARD_BENCH, load_data
from bench.entries import Domain
from bench.prefer import customise, route
from bench.registry import load_registry
from bench.scoring import models, passes, run
from bench.store.folder import Store

pytestmark = pytest.mark.slow

MODEL, BLOCK_TOKENS, ROWS_A_SUBSET = "smollm2-135m-instruct-q4", 800, 20


def long_domains(tokenizer) -> dict[str, Domain]:
    """The shipped domains, every exemplar's explanation filled up until its block has BLOCK_TOKENS tokens."""
    filler = " ".join(row.messages[-1].content for row in load_data("sample").examples).split()
    found = {}
    for name, domain in load_registry().domains.items():
        entry = domain.model_dump()
        for number, exemplar in enumerate(entry["exemplars"]):
            words = filler[97 * number :]
            while (
                len(tokenizer(customise.written(domain.exemplars[0].model_copy(update=exemplar))).input_ids)
                < BLOCK_TOKENS
            ):
                exemplar["explanation"] += " " + " ".join(words[:20])
                words = words[20:]
        found[name] = Domain.model_validate(entry)
    return found


def test_blocks_of_800_tokens_cost_at_most_half_as_much_again(small_models, reward_bench, tmp_path):
    spec, options = load_registry().model(MODEL), passes.resolved()
    plain = load_data(REWARD_BENCH, limit_per_subset=ROWS_A_SUBSET)
    domains = long_domains(models.load_tokenizer(small_models[MODEL]))
    known = route.by_section(plain, domains)
    wanted = list(zip(known["example_id"], known["domain"], strict=True))
    told = customise.customised(plain, domains, wanted, variant="exemplars", seed=0)
    assert len(plain.examples) == len(told.examples) == 460
    spent: dict[str, list[float]] = {"plain": [], "told": []}
    for turn, (name, data) in enumerate((("plain", plain), ("told", told), ("plain", plain))):
        work = passes.make_ready(passes.Work(spec, spec, data), options)
        info = run.score_missing(work, Store(tmp_path / str(turn)), options).info()
        spent[name].append(info["duration_s"])
        print(f"{name}: {info['duration_s']} s, {info['n_computed_tokens']:,} tokens computed, {work.key.dtype}")
    ratio = spent["told"][0] / statistics.mean(spent["plain"])
    print(f"customised over plain: {ratio:.2f}")
    assert ratio <= 1.5
