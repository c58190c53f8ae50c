"""Noise on weights: seeded, relative, the same however it is computed; and the text that tells what it broke."""

import math

import numpy as np
import pytest
import torch
from tiny_models import CONTEXT, entry, save_tiny, tiny_model
from tiny_tokenizers import byte_level
from transformers import LlamaConfig

from bench.entries import FolderSource, ModelSpec, UrlSource
from bench.registry import load_registry, pairs_folder
from bench.schema import Dataset, Example, Message, UsageError
from bench.scoring import fetch, models, passes
from bench.scoring.bits import bits_per_byte, sections
from bench.scoring.embed import embed_with
from bench.scoring.forward import kernels
from bench.scoring.forward.layers import fill
from bench.scoring.noise import add_noise
from bench.scoring.scorer import Scorer

NOISE = '[[models]]\nmodel_id = "{}"\nsource = {{ base = "tiny", noise = {}, seed = {} }}\n'
NOISE += 'format = "safetensors"\nmethod = "noise"\n\n'
EXAMPLE = Example("s/1", "s", (Message("user", "two"),), (("0", "three primes"), ("1", "no")))
REGISTRY = load_registry()
MEASURED = REGISTRY.families["noise-smollm2"].members + REGISTRY.families["noise-gemma"].members


class Small(torch.nn.Module):
    """A matrix of mean 1 and standard deviation 1, `factor` times as large, and a vector."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.matrix = torch.nn.Parameter(factor * torch.tensor([[0.0, 2.0], [2.0, 0.0]]))
        self.vector = torch.nn.Parameter(torch.tensor([1.0, 2.0]))


class Tied(torch.nn.Module):
    """Two names of one matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(2, 2, bias=False)
        self.first.weight = torch.nn.Parameter(torch.tensor([[0.0, 2.0], [2.0, 0.0]]))
        self.second = torch.nn.Linear(2, 2, bias=False)
        self.second.weight = self.first.weight


def noised(model: torch.nn.Module, *, noise: float, seed: int = 1) -> torch.nn.Module:
    add_noise(model, noise=noise, seed=seed)
    return model


def draws(name: str, *, seed: int) -> torch.Tensor:
    """The four draws of a 2 x 2 matrix of that name."""
    rng = np.random.Generator(np.random.PCG64([seed, *name.encode()]))
    return torch.from_numpy(rng.standard_normal((2, 2), dtype=np.float32))


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """A registry of a tiny model and noise models of it."""
    folder = tmp_path_factory.mktemp("noise")
    save_tiny(folder / "tiny", tokenizer=byte_level(eos="<|im_end|>"), seed=3)
    levels = ((0, 1), (0.3, 1), (0.3, 2))
    noisy = "".join(NOISE.format(f"tiny-{noise}-{seed}", noise, seed) for noise, seed in levels)
    (folder / "models.toml").write_text(entry("tiny", "tiny") + noisy)
    return load_registry(folder)


def test_a_matrix_moves_by_noise_times_its_own_deviation_times_its_own_draws():
    expected = torch.tensor([[0.0, 2.0], [2.0, 0.0]]) + 0.5 * draws("matrix", seed=7)
    assert torch.equal(noised(Small(), noise=0.5, seed=7).matrix, expected)


def test_a_matrix_four_times_as_large_gets_noise_four_times_as_large():
    assert torch.equal(noised(Small(4.0), noise=0.5).matrix, 4 * noised(Small(), noise=0.5).matrix)


def test_a_vector_stays_as_it_is():
    assert torch.equal(noised(Small(), noise=0.5).vector, torch.tensor([1.0, 2.0]))


def test_a_matrix_of_two_names_moves_once():
    model = noised(Tied(), noise=0.5)
    assert model.second.weight is model.first.weight
    assert torch.equal(model.first.weight, torch.tensor([[0.0, 2.0], [2.0, 0.0]]) + 0.5 * draws("first.weight", seed=1))


def test_a_seed_repeats_the_noise_and_another_changes_it():
    first, again, other = (noised(Small(), noise=0.5, seed=seed).matrix for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_level_0_is_the_base_bit_for_bit(known):
    base, level_0 = known.model("tiny"), known.model("tiny-0-1")
    for dtype in (torch.float32, torch.bfloat16):
        loaded = [
            models.load_model(fetch.fetch(spec).folder, dtype=dtype, device="cpu", change=noise).model.state_dict()
            for spec, noise in ((base, None), (level_0, level_0.source))
        ]
        assert all(torch.equal(loaded[0][name], loaded[1][name]) for name in loaded[0])


def test_neither_threads_nor_dtype_change_the_noise(known):
    spec = known.model("tiny-0.3-1")
    states = {}
    before = torch.get_num_threads()
    try:
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            for dtype in (torch.float32, torch.bfloat16):
                model = models.load_model(spec.files.source.folder, dtype=dtype, device="cpu", change=spec.source)
                states[n_threads, dtype] = dict(model.model.named_parameters())
    finally:
        torch.set_num_threads(before)
    for name, weight in states[1, torch.float32].items():
        assert torch.equal(weight, states[2, torch.float32][name])
        for n_threads in (1, 2):
            found = states[n_threads, torch.bfloat16][name]
            # In float32 first, then cast: never noise on weights that are rounded already.
            rounded = weight.bfloat16()
            assert torch.equal(kernels.panels(rounded) if kernels.in_panels(found) else rounded, found)


def test_the_weight_of_a_convolution_is_no_panel():
    weight = torch.nn.Conv2d(3, 4, 2).weight
    values = torch.randn(4, 3, 2, 2)
    fill(weight, values)
    assert torch.equal(weight, values)


def test_a_noise_model_has_its_bases_files_and_a_revision_of_its_own(known):
    base, noisy = (fetch.fetch(known.model(name)) for name in ("tiny", "tiny-0.3-2"))
    assert noisy.folder == base.folder
    assert noisy.revision == f"{base.revision}+noise-0.3-seed-2"


def test_a_pass_scores_the_broken_weights(known):
    def logps(name: str) -> np.ndarray:
        spec = known.model(name)
        ready = passes.make_ready(
            passes.Work(spec, known.model("tiny"), Dataset("d", "d", "", (EXAMPLE,))), passes.resolved("fp32")
        )
        return np.concatenate(Scorer(ready, passes.resolved("fp32")).examples_logps([EXAMPLE])[0])

    base, level_0, one, two = (logps(name) for name in ("tiny", "tiny-0-1", "tiny-0.3-1", "tiny-0.3-2"))
    assert np.array_equal(base, level_0)
    assert np.abs(base - one).max() > 0.1 and np.abs(one - two).max() > 0.1


def test_embeddings_of_a_noise_model_are_those_of_its_noise(known):
    names = ("tiny", "tiny-0-1", "tiny-0.3-1")
    base, level_0, noisy = (embed_with(known.model(each), (EXAMPLE,), passes.resolved("fp32", "cpu")) for each in names)
    assert np.array_equal(base, level_0)
    assert np.abs(base - noisy).max() > 0.01


def test_a_model_on_a_server_is_neither_measured_nor_embeds_by_its_tokenizers_folder(known):
    # The folder of the tokenizer has weights too.
    folder = str(known.model("tiny").source.folder)
    source = UrlSource(url="http://127.0.0.1:9", model="m", kind="vllm", tokenizer=folder)
    spec = ModelSpec(model_id="served", source=source, format="server", method="dpo", context_tokens=CONTEXT)
    words = "^served: its weights are on a server, .*; name a model_id whose files are here$"
    with pytest.raises(UsageError, match=words):
        bits_per_byte(spec, sections("== a\nxyz\n"))
    with pytest.raises(UsageError, match=words):
        embed_with(spec, (EXAMPLE,), passes.resolved("fp32", "cpu"))


def test_a_model_that_knows_nothing_needs_the_bits_of_one_token_a_byte(tmp_path):
    tokenizer = byte_level(eos="<|end|>")
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=CONTEXT,
    )  # fmt: skip
    tiny_model(config, seed=0, scale=0.0).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    spec = ModelSpec(model_id="flat", source=FolderSource(folder=tmp_path), format="safetensors", method="base")
    # No two of these bytes are one token, and every token has the probability 1 / len(tokenizer).
    got = bits_per_byte(spec, sections("== a\nxyz\n\n== b\nzyx\nx\n"))
    assert got == pytest.approx(math.log2(len(tokenizer)), rel=1e-6)


def test_a_section_is_a_title_and_what_stands_under_it():
    first, second = sections("== One\nA line.\n\nAnother.\n\n== Two == 2\nLast.\n")
    assert (first.messages, first.responses) == ((Message("user", "One"),), (("0", "A line.\n\nAnother."),))
    assert (second.messages[0].content, second.responses[0][1]) == ("Two == 2", "Last.")


@pytest.mark.parametrize("text", ["", "no title", "before\n== One\nafter"])
def test_a_text_without_sections_is_refused(text):
    with pytest.raises(UsageError, match='begins with a line "== Title"'):
        sections(text)


def test_no_row_is_judged_on_the_text_that_orders_the_study():
    text = (pairs_folder() / "noise_text.txt").read_text(encoding="utf-8")
    rows = (pairs_folder() / "sample.jsonl").read_text(encoding="utf-8")
    assert 6000 < len(text.encode()) < 10000
    assert not [line for line in text.splitlines() if len(line) > 20 and line.removeprefix("== ") in rows]


@pytest.mark.slow
@pytest.mark.parametrize("model_id", MEASURED)
def test_a_score_of_the_noise_study_is_measured_again(model_id):
    spec = REGISTRY.model(model_id)
    text = (pairs_folder() / "noise_text.txt").read_text(encoding="utf-8")
    assert -bits_per_byte(spec, sections(text)) == pytest.approx(spec.score("neg_bits_per_byte"), abs=1e-3)


@pytest.mark.slow
def test_a_broken_model_is_not_refused_for_what_rounding_does_to_it():
    # In bfloat16 its own forward pass and the engine are nats apart; its base, which is what is checked, is not broken.
    spec = REGISTRY.model("gemma-noise-0.45")
    folder = fetch.fetch(spec).folder
    broken = models.load_model(folder, dtype=torch.bfloat16, device="cpu", change=spec.source)
    assert broken.model.dtype == torch.bfloat16
