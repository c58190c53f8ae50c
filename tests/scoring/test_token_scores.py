"""A run with --tokens: what is stored of each token, and that the sums are those of a run without."""

import numpy as np
import pytest
import torch
from test_scorer import LONG, OPTIONS, ROWS, ready
from transformers import AutoModelForCausalLM

from bench.scoring import passes, run
from bench.scoring.forward import head as heads
from bench.scoring.forward import ops
from bench.scoring.scorer import Scorer
from bench.store.folder import ScoreSet, Store

WITH = OPTIONS._replace(tokens=True)
CPU = ops.Processor("avx512", onednn_leads=False, fuses_bf16=True, has_kernels=False)


def scored(registry, root, options: passes.Options = WITH) -> ScoreSet:
    rows = [*ROWS, LONG]
    return run.score_missing(ready(registry, rows, options=options), Store(root), options)


def files(score_set: ScoreSet, stem: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in score_set.folder.glob(f"{stem}-*.parquet")}


def test_stored_tokens_are_the_plain_models(tiny_registry, tmp_path):
    frame = scored(tiny_registry, tmp_path).read_tokens().set_index(["example_id", "response_id"])
    scorer = Scorer(ready(tiny_registry, ROWS), OPTIONS)
    model = AutoModelForCausalLM.from_pretrained(tiny_registry / "strong", dtype=torch.float64).eval()
    for sequence in scorer.rendered(ROWS).sequences:
        ids = torch.from_numpy(sequence.ids.astype(np.int64))
        with torch.inference_mode():
            logits = model(input_ids=ids[None]).logits[0, sequence.start - 1 : -1]
        logps = logits.log_softmax(-1)
        row = frame.loc[sequence.example_id, sequence.response_id]
        own = logps.gather(1, ids[sequence.start :, None])[:, 0]
        for name, exact in (
            ("logp_nats", own), ("logsumexp_nats", logits.logsumexp(-1)), ("top_logp_nats", logps.amax(-1))
        ):  # fmt: skip
            np.testing.assert_allclose(row[name], exact.numpy(), rtol=0, atol=3e-5)
        assert row["byte_end"][-1] == row["byte_end"][-2] == len(sequence.text.encode())


def test_a_response_that_is_too_long_has_no_lists(tiny_registry, tmp_path):
    frame = scored(tiny_registry, tmp_path).read_tokens().set_index("example_id")
    assert frame.loc["s/90"].drop(columns="response_id").isna().all(axis=None)


def test_sums_are_those_of_a_run_without_tokens_and_tokens_come_later_to_the_byte(tiny_registry, tmp_path, capsys):
    once = scored(tiny_registry, tmp_path / "once")
    later = scored(tiny_registry, tmp_path / "later", OPTIONS)
    assert not later.has_tokens and files(later, "part") == files(once, "part")
    manifest = (later.folder / "manifest.json").read_bytes()
    capsys.readouterr()
    later = scored(tiny_registry, tmp_path / "later")
    n_parts = len(files(later, "part"))
    assert f"the sums of {n_parts} parts are stored without tokens" in capsys.readouterr().err
    assert (later.folder / "manifest.json").read_bytes() == manifest
    assert files(later, "part") == files(once, "part") and files(later, "tokens") == files(once, "tokens")
    scored(tiny_registry, tmp_path / "later")
    assert capsys.readouterr().err == ""


def test_only_the_parts_without_tokens_are_scored_again(tiny_registry, tmp_path, capsys):
    options = WITH._replace(batch_tokens=16)
    whole = scored(tiny_registry, tmp_path / "whole", options)
    assert len(files(whole, "part")) == 2
    (path,) = whole.folder.glob("tokens-0000-*")
    path.unlink()
    expected = files(scored(tiny_registry, tmp_path / "other", options), "tokens")
    capsys.readouterr()
    assert files(scored(tiny_registry, tmp_path / "whole", options), "tokens") == expected
    assert "the sums of 1 parts are stored without tokens" in capsys.readouterr().err


SUMS = {
    "oneDNN": ops.on_cpu(torch.float32, CPU._replace(onednn_leads=True)).log_totals,
    "MKL": ops.on_cpu(torch.float32, CPU).log_totals,
    "GPU": ops.gpu_ops("tiles", "eager", "").log_totals,
}


@pytest.mark.parametrize("sums", SUMS.values(), ids=SUMS)
@pytest.mark.parametrize("cap", [None, 5.0])
def test_a_head_gives_the_largest_log_probability_of_every_row(sums, cap):
    rng = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(8, 5000, bias=True)
    hidden, targets = torch.randn(40, 8, generator=rng), torch.randint(0, 5000, (40,), generator=rng)
    with torch.inference_mode():
        head.weight.copy_(torch.randn(5000, 8, generator=rng) * 30)
        logits = hidden.double() @ head.weight.double().T + head.bias.double()
        logits = logits if cap is None else torch.tanh(logits / cap) * cap

        def rescale(x: torch.Tensor) -> torch.Tensor:
            return x if cap is None else heads.rescaled(x, final_logit_softcapping=cap)

        made, details = heads.Head(head, rescale, sums(head, rescale), 16), torch.empty(2, 40, dtype=torch.float64)
        got = heads.head_logps(made, hidden, targets, details)
        assert torch.equal(got, heads.head_logps(made, hidden, targets))
    totals = logits.logsumexp(-1)
    torch.testing.assert_close(details, torch.stack([totals, logits.amax(-1) - totals]), rtol=1e-6, atol=3e-5)
    assert (details[1] >= got).all()
