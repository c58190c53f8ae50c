"""REAL's selection: similarities against plain float64, pairs and shares by hand."""

import os

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bench.data.load import load_data
from bench.prefer.select import Picked, keep, pick, pick_all
from bench.schema import UsageError
from bench.scoring import models
from bench.scoring.embed import embed

# Directions in a plane, in degrees: 0 and 10 are near, 170 is far from 0, 90 between.
ANGLES = np.deg2rad([0, 90, 10, 170])
FOUR = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1) * [[1], [2], [3], [4]]


def picked(strategy: str, embeddings=FOUR, seed: int = 0) -> Picked:
    return pick(embeddings, strategy, rng=np.random.default_rng(seed))


def test_the_least_and_the_most_similar_pair():
    assert picked("dissimilar")[:2] == (0, 3)
    assert picked("dissimilar").similarity == pytest.approx(np.cos(np.deg2rad(170)))
    assert picked("similar")[:2] == (0, 2)
    assert picked("similar").similarity == pytest.approx(np.cos(np.deg2rad(10)))


def test_the_centroid_pair_is_nearest_to_the_centres_of_two_clusters():
    left, right = np.array([[0.0, 1.0], [0.2, 1.0], [0.1, 1.0]]), np.array([[5.0, 1.0], [5.4, 1.0], [5.1, 1.0]])
    # The centres are (0.1, 1) and (5.1667, 1).
    assert picked("centroid", np.concatenate([left, right]))[:2] == (2, 5)


def test_the_centroid_pair_is_of_two_clusters_also_where_one_candidate_is_nearest_to_both_centres():
    # Six near duplicates and eight others on axes of their own: from some starts k-means parts the two kinds. Then the
    # others' centre, 10 / 8 on each axis, is nearer to a duplicate (sqrt(49 + 12.5)) than to any of them (sqrt(87.5)).
    near = np.zeros((14, 9))
    near[:6, 0] = np.linspace(7, 6.9, 6)
    near[range(6, 14), range(1, 9)] = 10
    pairs = [picked("centroid", near, seed)[:2] for seed in range(5)]
    assert all(first < 6 <= second for first, second in pairs)
    two = np.array([[1.0, 0.0], [1.0, 1e-12]])
    assert picked("centroid", two)[:2] == (0, 1)


@pytest.mark.parametrize("strategy", ["dissimilar", "similar", "centroid", "random"])
def test_a_pair_is_never_two_of_one_embedding_and_none_where_there_is_but_one(strategy):
    twice = np.array([[1.0, 2.0], [1.0, 2.0], [2.0, 1.0], [1.0, 2.0]])
    assert {picked(strategy, twice, seed)[:2] for seed in range(30)} <= {(0, 2), (1, 2), (2, 3)}
    assert picked(strategy, np.ones((4, 3))) is None
    assert pick_all(np.ones((5, 3)), [2, 3], strategy, seed=0) == [None, None]


def test_a_random_pair_is_any_and_hangs_on_the_seed():
    drawn = {picked("random", seed=seed)[:2] for seed in range(100)}
    assert drawn == {(i, j) for i in range(4) for j in range(i + 1, 4)}
    assert picked("random", seed=7) == picked("random", seed=7)


@pytest.mark.parametrize("strategy", ["dissimilar", "similar", "centroid", "random"])
def test_the_number_of_processes_changes_nothing(strategy, monkeypatch):
    monkeypatch.setattr("bench.prefer.select._CHUNK", 50)
    rng = np.random.default_rng(1)
    sizes = rng.integers(2, 6, 120)
    embeddings = rng.normal(size=(sizes.sum(), 3))
    one, two = (pick_all(embeddings, sizes, strategy, seed=3, n_jobs=n) for n in (1, 2))
    assert one == two and len(one) == len(sizes)


def test_more_prompts_than_one_part_holds_are_picked_as_each_alone(monkeypatch):
    monkeypatch.setattr("bench.prefer.select._CHUNK", 50)
    rng = np.random.default_rng(2)
    sizes = rng.integers(2, 4, 101).tolist()
    embeddings = rng.normal(size=(sum(sizes), 3))
    alone = [picked("dissimilar", rows) for rows in np.split(embeddings, np.cumsum(sizes)[:-1])]
    assert pick_all(embeddings, sizes, "dissimilar", seed=0) == alone


def test_the_random_pairs_of_one_part_are_not_those_of_the_next(monkeypatch):
    monkeypatch.setattr("bench.prefer.select._CHUNK", 50)
    rows = np.random.default_rng(1).normal(size=(600, 3))
    pairs = [each[:2] for each in pick_all(rows, [6] * 100, "random", seed=3)]
    assert pairs[:50] != pairs[50:]


def test_a_share_of_the_prompts_is_kept_in_their_order():
    some = [Picked(0, 1, value) for value in (0.9, 0.1, 0.5, 0.3)]
    assert keep(some, "dissimilar", fraction=0.5, seed=0).tolist() == [1, 3]
    assert keep(some, "similar", fraction=0.5, seed=0).tolist() == [0, 2]
    assert keep(some, "dissimilar", fraction=0.01, seed=0).tolist() == [1]
    assert len(keep(some, "random", fraction=0.7, seed=0)) == 3  # 2.8
    halves = {tuple(keep(some, "random", fraction=0.5, seed=seed)) for seed in range(60)}
    assert len(halves) == 6


TEXTS = ["yes", "no, never", "it is two\nand three", "yes", "the answer is 7 🎉", "the answer is 8"] * 3


def test_embeddings_are_the_plain_means_of_the_last_hidden_states(tiny_registry):
    folder = tiny_registry / "strong"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ours = embed(models.load_model(folder, dtype=torch.float32, device="cpu"), tokenizer, TEXTS, limit=2048)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    with torch.inference_mode():
        rows = [model.base_model(tokenizer(text, return_tensors="pt").input_ids) for text in TEXTS]
    exact = np.stack([row.last_hidden_state[0].mean(dim=0).numpy() for row in rows])
    np.testing.assert_allclose(ours, exact, rtol=0, atol=1e-4)
    similarity = pick(ours[1:3], "similar", rng=np.random.default_rng(0)).similarity
    a, b = exact[1:3]
    assert similarity == pytest.approx(a @ b / np.sqrt((a @ a) * (b @ b)), abs=1e-5)


def test_a_text_longer_than_the_context_is_named(tiny_registry):
    folder = tiny_registry / "strong"
    model = models.load_model(folder, dtype=torch.float32, device="cpu")
    with pytest.raises(UsageError, match=r"text 1: .* tokens, the model reads 5"):
        embed(model, AutoTokenizer.from_pretrained(folder), ["a", "a b c d e f g"], limit=5)


@pytest.mark.slow
def test_similarities_of_real_rows_are_those_of_a_plain_float64_computation(small_models):
    path = os.environ.get("DRSOW_HH_RLHF")
    if not path:
        pytest.skip("DRSOW_HH_RLHF names no file")
    rows = load_data(path).examples
    assert len(rows) == 2303
    folder = small_models["smollm2-135m-instruct-q4"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [text for row in rows for _, text in row.responses]
    ours = embed(models.load_model(folder, dtype=torch.float32, device="cpu"), tokenizer, texts, limit=8192)
    found = np.array([each.similarity for each in pick_all(ours, [2] * len(rows), "dissimilar", seed=0)])
    # All rows: the cosine. Every twelfth row: the embeddings under it as well, each text alone in float64.
    a, b = ours[::2].astype(np.float64), ours[1::2].astype(np.float64)
    np.testing.assert_allclose(found, (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1)), rtol=0, atol=1e-12)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    exact = []
    for row in rows[::12]:
        with torch.inference_mode():
            both = [model.base_model(tokenizer(text, return_tensors="pt").input_ids) for _, text in row.responses]
        one, other = (each.last_hidden_state[0].mean(dim=0) for each in both)
        exact.append(float(one @ other / (one.norm() * other.norm())))
    print(f"largest difference of {len(exact)} cosines: {np.abs(found[::12] - exact).max():.1e}")
    np.testing.assert_allclose(found[::12], exact, rtol=0, atol=1e-5)
