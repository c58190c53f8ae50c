"""The settings of a stopped run beside those of now."""

from bench.prefer.resumed import changed

RUN = {
    "model_id": "run/tuned", "revision": "sha256:1", "prompts": "prompts.jsonl", "prompts_digest": "ab", "top_p": 1.0,
}  # fmt: skip


def test_a_folder_that_was_moved_goes_on_and_other_weights_or_rows_do_not():
    moved = RUN | {"model_id": "/elsewhere/run/tuned", "prompts": "/elsewhere/prompts.jsonl"}
    assert changed(RUN, moved) == []
    assert changed(RUN, moved | {"revision": "sha256:2", "prompts_digest": "cd"}) == [
        "model_id was run/tuned, now /elsewhere/run/tuned", "revision was sha256:1, now sha256:2",
        "prompts was prompts.jsonl, now /elsewhere/prompts.jsonl", "prompts_digest was ab, now cd",
    ]  # fmt: skip


def test_a_place_without_a_digest_is_the_setting_itself():
    server = {"model_id": "one", "url": "http://localhost:8000"}
    assert changed(server, server | {"model_id": "two"}) == ["model_id was one, now two"]


def test_a_setting_that_one_of_both_lacks_is_named_and_a_long_one_is_cut():
    assert changed(RUN, RUN | {"slots": 64}) == ["slots was absent, now 64"]
    assert changed(RUN | {"slots": 64}, RUN) == ["slots was 64, now absent"]
    assert changed(RUN, RUN | {"revision": "x" * 50}) == [f"revision was sha256:1, now {'x' * 40}…"]
