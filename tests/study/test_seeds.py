"""Where the draws of a subject's statistics come from."""

from bench.schema import Dataset
from bench.study.board import seeded


def data(digest: str, name: str = "mine") -> Dataset:
    return Dataset(name, name, digest, ())


def first(digest: str, seed: int | None, name: str = "mine") -> int:
    return int(seeded(data(digest, name), seed).integers(2**63))


def test_without_a_seed_the_draws_are_the_datas():
    assert first("aa", None) == first("aa", None, name="another name")
    assert first("aa", None) != first("bb", None)


def test_a_seed_takes_the_datas_place():
    assert first("aa", 7) == first("bb", 7)
    assert len({first("aa", seed) for seed in (None, 0, 7, 8)}) == 4
