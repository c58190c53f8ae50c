"""Which results folder holds the tables of which rows."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import filelock
import pytest

from bench.files import write_json
from bench.registry import Pair
from bench.schema import Dataset, PreconditionError
from bench.store.folder import Store
from bench.store.places import (
    Place,
    folder_to_read,
    folder_to_write,
    found_folder,
    locked_folder,
    manifest,
    results_option,
)
from bench.subject import Subject, place_of
from bench.verbs.ablate import Ablation, ablation_place

SUBJECT = Subject("two", (Pair("two", "strong", "weak", "", "strong", float("nan")),))


def rows(name: str, digest: str, **more: object) -> Dataset:
    return Dataset(f"/data/{name}.jsonl", name, digest, (), **more)


def written(store: Store, place: Place):
    folder = folder_to_write(store, place)
    write_json(folder / "manifest.json", manifest(place, []))
    return folder


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path)


def test_equal_rows_under_another_name_have_the_same_folder(store):
    folder = written(store, Place("two", rows("base", "abc")))
    assert folder == store.root / "two" / "base"
    assert folder_to_write(store, Place("two", rows("copy", "abc"))) == folder
    assert folder_to_read(store, Place("two", rows("copy", "abc")), option="--pair two") == folder


def test_other_rows_under_one_name_have_a_folder_of_their_own(store):
    first = written(store, Place("two", rows("base", "abc")))
    second = written(store, Place("two", rows("base", "0123456789")))
    assert (first.name, second.name) == ("base", "base-01234567")
    for digest, folder in (("abc", first), ("0123456789", second)):
        assert found_folder(store, Place("two", rows("base", digest))) == folder


def test_each_of_several_places_of_one_name_is_found_in_a_folder_of_its_own(store):
    few, many = rows("base", "abc"), rows("base", "0123456789")
    places = [Place("two", few), Place("two", many), *(Place("two", many, told={"seed": seed}) for seed in (5, 6))]
    folders = [written(store, place) for place in places]
    assert len(set(folders)) == 4
    assert [found_folder(store, place) for place in places] == folders


def test_a_folder_beside_the_expected_one_that_names_no_seed_is_not_of_every_seed(store):
    for digest in ("abc", "0123456789"):
        written(store, Place("two", rows("base", digest)))
    assert found_folder(store, Place("two", rows("base", "0123456789"), told={"seed": 5})) is None


def test_tables_of_other_rows_are_refused_with_what_to_run(store):
    folder = written(store, Place("two", rows("base", "abc")))
    with pytest.raises(PreconditionError) as error:
        folder_to_read(store, Place("two", rows("base", "xyz", limit=5)), option="--pair two")
    assert str(error.value) == (
        f"{folder}: its tables belong to other rows than /data/base.jsonl has now; `drsow run --pair two --data "
        f"/data/base.jsonl --limit-per-subset 5 --results {store.root}` writes the tables of these rows beside them"
    )
    assert results_option(Store(Path("results"))) == ""
    assert results_option(Store(Path("my results"))) == " --results 'my results'"


def test_the_built_in_data_are_held_to_their_digest_too(store):
    folder = written(store, Place("two", Dataset("reward-bench", "reward-bench", "abc", ())))
    assert folder.name == "reward-bench"
    other = Place("two", Dataset("reward-bench", "reward-bench", "xyz", ()))
    with pytest.raises(PreconditionError, match="its tables belong to other rows than reward-bench has now"):
        folder_to_read(store, other, option="--pair two")


def test_two_processes_that_begin_at_once_write_a_folder_each(store):
    first, second = Place("two", rows("base", "abc")), Place("two", rows("base", "xyz"))

    def begin(place: Place) -> Path:
        with locked_folder(store, place) as folder:
            time.sleep(0.2)  # the other one looks for a folder meanwhile
            write_json(folder / "manifest.json", manifest(place, []))
        return folder

    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(begin, (first, second)))
    assert folders == [found_folder(store, place) for place in (first, second)]
    assert len(set(folders)) == 2


def test_a_folder_without_locks_is_written_without_one(store, monkeypatch):
    def no_locks(_self) -> None:
        # what filelock raises where a file system has no locks
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(filelock.FileLock, "acquire", no_locks)
    with locked_folder(store, Place("two", rows("base", "abc"))) as folder:
        assert folder == store.root / "two" / "base"


@pytest.mark.parametrize("text", [None, "", "{"])
def test_tables_whose_manifest_cannot_be_read_are_not_replaced(store, text):
    place = Place("two", rows("base", "abc"))
    folder = written(store, place)
    (folder / "leaderboard.csv").write_text("rank\n1\n")
    (folder / "manifest.json").unlink()
    if text is not None:
        (folder / "manifest.json").write_text(text)
    assert written(store, place).name == "base-abc"
    assert folder_to_read(store, place, option="--pair two").name == "base-abc"


def test_tables_that_nothing_says_the_rows_of_are_refused(store):
    (store.root / "two" / "base").mkdir(parents=True)
    (store.root / "two" / "base" / "leaderboard.csv").write_text("rank\n1\n")
    with pytest.raises(PreconditionError, match=r"no manifest\.json that names the rows of its tables"):
        folder_to_read(store, Place("two", rows("base", "abc")), option="--pair two")


def test_a_file_named_like_a_variant_has_a_folder_of_its_own(store):
    mean = place_of(SUBJECT, rows("base", "abc"), reward="mean")
    assert written(store, mean).name == "base-mean"
    for digest in ("abc", "xyz"):
        plain = place_of(SUBJECT, rows("base-mean", digest))
        assert found_folder(store, plain) is None
        assert written(store, plain) != folder_to_write(store, mean)


def test_an_ablation_of_fewer_rows_other_routers_or_another_seed_is_another_one(store):
    wish = Ablation(["section"], 0, "sum")
    whole, few = rows("base", "abc"), rows("base-5-per-subset", "abd", limit=5)
    wishes = [(whole, wish), (few, wish), (whole, wish._replace(routers=["model"])), (whole, wish._replace(seed=1))]
    wishes.append((whole, wish._replace(reward="mean")))
    folders = [written(store, ablation_place(SUBJECT, *each)) for each in wishes]
    assert len(set(folders)) == len(folders)
    assert folders[0].name == "base-ablation" and folders[1].name == "base-5-per-subset-ablation"
    assert [folder_to_write(store, ablation_place(SUBJECT, *each)) for each in wishes] == folders


def test_people_agreement_under_another_embedder_is_another_one(store):
    places = [Place("two", rows("base", "abc"), "agreement", {"embedder": e}, above="real") for e in ("x", "y")]
    # The pair "base-two" on a file "…" of the same path would meet it too.
    places.append(Place("two", rows("base", "abd"), "agreement", {"embedder": "x"}, above="real"))
    folders = [written(store, place) for place in places]
    assert len(set(folders)) == 3 and folders[0] == store.root / "real" / "base-two"
    assert [folder_to_write(store, place) for place in places] == folders


def test_a_manifest_that_nests_too_deeply_is_no_manifest(store):
    folder = store.root / "two" / "base"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("[" * 100_000)
    assert found_folder(store, Place("two", rows("base", "abc"))) is None


def test_a_manifest_of_before_is_believed_in_its_own_folder(store):
    folder = store.root / "two" / "sample"
    write_json(folder / "manifest.json", {"subject": "two", "data": "sample", "data_digest": "abc"})
    assert found_folder(store, Place("two", Dataset("sample", "sample", "abc", ()))) == folder
