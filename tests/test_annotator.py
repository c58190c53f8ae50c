"""The Python interface: rewards and stretches of a pair whose models are loaded once."""

import gc
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import huggingface_hub.utils
import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_models import entry, pair_entry, save_lora
from transformers import LlamaForCausalLM

import bench

PROMPT = "Is 7 prime?"
RESPONSES = ["yes, it is", "no", "é 🎉 no"]


@pytest.fixture(scope="module")
def annotator(tiny_registry):
    with bench.Annotator("tiny", dtype="fp32", device="cpu", registry=tiny_registry) as opened:
        yield opened


def loaded() -> set[int]:
    """The identities of the models in memory."""
    gc.collect()
    # By type: some objects of torch warn when they are asked for their class.
    return {id(each) for each in gc.get_objects() if issubclass(type(each), LlamaForCausalLM)}


def n_models() -> int:
    return len(loaded())


def test_an_annotators_rewards_are_those_of_one_call(annotator, tiny_registry):
    once = bench.reward("tiny", PROMPT, RESPONSES, dtype="fp32", device="cpu", registry=str(tiny_registry))
    assert annotator.reward(PROMPT, RESPONSES) == pytest.approx(once, abs=1e-6)
    assert annotator.reward([{"role": "user", "content": PROMPT}], RESPONSES) == pytest.approx(once, abs=1e-6)
    assert len({round(each, 3) for each in once}) == len(once)


def test_a_batch_has_the_rewards_of_each_prompt_alone_in_its_order(annotator):
    batch = [(PROMPT, RESPONSES), ("Is 7 prime, or two?", ["yes"]), (PROMPT, RESPONSES[::-1])]
    found = annotator.rewards(batch)
    assert [len(row) for row in found] == [3, 1, 3]
    for row, each in zip(found, batch, strict=True):
        assert row == pytest.approx(annotator.reward(*each), abs=1e-3)
    assert found[2] == pytest.approx(found[0][::-1], abs=1e-3)
    assert annotator.rewards([]) == []


def test_stretches_are_the_response_and_sum_to_its_reward(annotator):
    for response in RESPONSES:
        frame = annotator.tokens(PROMPT, response)
        assert list(frame.columns) == ["byte_start", "byte_end", "text", "ratio_nats"]
        assert "".join(frame["text"]) == response
        assert frame["byte_end"].iloc[-1] == frame["byte_start"].iloc[-1] == len(response.encode())
        assert frame["ratio_nats"].sum() == pytest.approx(annotator.reward(PROMPT, [response])[0], abs=1e-3)


def test_the_models_are_loaded_once_for_all_calls(tiny_registry, tmp_path):
    folder = shutil.copytree(tiny_registry, tmp_path / "registry")
    opened = bench.Annotator("tiny", dtype="fp32", device="cpu", registry=folder)
    shutil.rmtree(folder)
    # No file is left to load a model from.
    assert opened.reward(PROMPT, RESPONSES) == opened.reward(PROMPT, RESPONSES)
    assert len(opened.rewards([(PROMPT, RESPONSES)])[0]) == 3
    assert opened.tokens(PROMPT, "no")["text"].iloc[-1] == ""


def test_reward_keeps_one_pairs_models_until_they_are_released(tiny_registry):
    bench.release()
    before = n_models()

    def once(dtype):
        return bench.reward("tiny", PROMPT, RESPONSES, dtype=dtype, device="cpu", registry=tiny_registry)

    first, models = once("fp32"), loaded()
    assert len(models) == before + 2
    assert once("fp32") == first
    assert loaded() == models
    assert once("bf16") != first
    assert n_models() == before + 2
    bench.release()
    assert n_models() == before


def test_reward_reads_a_model_again_whose_files_have_changed(tiny_registry, tmp_path):
    folder = shutil.copytree(tiny_registry, tmp_path / "registry")

    def once():
        return bench.reward("tiny", PROMPT, RESPONSES, dtype="fp32", device="cpu", registry=folder)

    first = once()
    weights = load_file(folder / "strong" / "model.safetensors")
    weights["model.norm.weight"] *= 2
    save_file(weights, folder / "strong" / "model.safetensors", metadata={"format": "pt"})
    assert once() != first
    assert len({round(each, 3) for each in [*first, *once()]}) == 2 * len(first)


def test_reward_reads_an_adapter_again_that_was_trained_on(tiny_registry, tmp_path):
    folder = shutil.copytree(tiny_registry, tmp_path / "registry")
    lora = save_lora(folder / "lora", folder / "strong", base_name="strong")
    source = 'source = { adapter = "lora", base = "tiny-strong" }'
    with (folder / "models.toml").open("a") as file:
        file.write(entry("tiny-lora", "x").replace('source = { folder = "x" }', source))
    with (folder / "pairs.toml").open("a") as file:
        file.write(pair_entry("tuned", "tiny-lora", "tiny-weak"))

    def once():
        return bench.reward("tuned", PROMPT, RESPONSES, dtype="fp32", device="cpu", registry=folder)

    first = once()
    weights = load_file(lora / "adapter_model.safetensors")
    save_file({name: 2 * each for name, each in weights.items()}, lora / "adapter_model.safetensors")
    again = once()
    assert not np.isclose(again, first).any()
    bench.release()
    assert once() == again


def test_annotators_that_threads_load_at_once_have_the_rewards_of_each_alone(tiny_registry):
    def rewarded(dtype: str) -> tuple[float, ...]:
        with bench.Annotator("tiny", dtype=dtype, device="cpu", registry=tiny_registry) as opened:
            return tuple(opened.reward(PROMPT, RESPONSES))

    alone = {dtype: rewarded(dtype) for dtype in ("bf16", "fp32")}
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(rewarded, ["bf16", "fp32"] * 3))
    assert found == [alone["bf16"], alone["fp32"]] * 3
    assert torch.get_default_dtype() == torch.float32


def test_loading_leaves_the_settings_of_transformers_as_they_were(tiny_registry):
    level = transformers.logging.get_verbosity()
    for shown in (True, False):
        switch = transformers.utils.logging
        (switch.enable_progress_bar if shown else switch.disable_progress_bar)()
        bench.Annotator("tiny", dtype="fp32", device="cpu", registry=tiny_registry).close()
        assert switch.is_progress_bar_enabled() is shown
        assert huggingface_hub.utils.are_progress_bars_disabled() is not shown
    switch.enable_progress_bar()
    assert transformers.logging.get_verbosity() == level


def test_reward_ignores_a_link_to_nothing_in_a_models_folder(tiny_registry, tmp_path):
    folder = shutil.copytree(tiny_registry, tmp_path / "registry")
    # What Emacs puts beside a file that somebody edits.
    (folder / "strong" / ".#config.json").symlink_to("me@host.123:456")
    options = {"dtype": "fp32", "device": "cpu"}
    expected = bench.reward("tiny", PROMPT, RESPONSES, **options, registry=tiny_registry)
    assert bench.reward("tiny", PROMPT, RESPONSES, **options, registry=folder) == expected


def test_a_wrong_text_leaves_the_kept_models_and_an_unknown_pair_too(tiny_registry):
    options = {"dtype": "fp32", "device": "cpu", "registry": tiny_registry}
    first = bench.reward("tiny", PROMPT, RESPONSES, **options)
    with pytest.raises(bench.UsageError, match="response 0 is empty"):
        bench.reward("tiny", PROMPT, [""], **options)
    with pytest.raises(bench.UsageError, match="unknown pair"):
        bench.reward("tinny", PROMPT, ["yes"], **options)
    assert bench.reward("tiny", PROMPT, RESPONSES, **options) == first


def test_a_closed_annotator_holds_no_model_and_says_so(tiny_registry):
    before = n_models()
    with bench.Annotator("tiny", dtype="fp32", device="cpu", registry=tiny_registry) as opened:
        assert n_models() == before + 2
    opened.close()
    assert n_models() == before
    for method, words in ((opened.reward, (PROMPT, ["no"])), (opened.rewards, ([],)), (opened.tokens, (PROMPT, "no"))):
        with pytest.raises(bench.UsageError, match="this annotator is closed"):
            method(*words)


@pytest.mark.parametrize(
    ("messages", "responses", "said"),
    [
        (PROMPT, "yes", "the prompt: responses must be a list of texts, not one text"),
        (PROMPT, [], "the prompt: there is no response to score"),
        (PROMPT, ["yes", 7], r"the prompt: responses\[1\]: must be text, is int"),
        (PROMPT, ["yes", " "], "the prompt: response 1 is empty"),
        (PROMPT, ["\ud83d"], r"the prompt: responses\[0\]: holds half of a surrogate pair"),
        (PROMPT, None, "the prompt: responses must be a list of texts, is NoneType"),
        (PROMPT, 7, "the prompt: responses must be a list of texts, is int"),
        (PROMPT, {"a": "yes"}, "the prompt: responses must be a list of texts, is dict"),
        (PROMPT, {"yes", "no"}, "the prompt: responses must be a list of texts, is set"),
        (PROMPT, b"yes", "the prompt: responses must be a list of texts, is bytes"),
        (PROMPT, pd.DataFrame({"x": ["yes"]}), "the prompt: responses must be a list of texts, is DataFrame"),
        (PROMPT, np.array("yes"), "the prompt: responses must be a list of texts, is ndarray"),
        (PROMPT, np.array([]), "the prompt: there is no response to score"),
        (PROMPT, pd.Series(["yes", float("nan")]), r"the prompt: responses\[1\]: must be text, is float"),
        (None, ["yes"], "the prompt: messages must be a text or a list of messages, is NoneType"),
        ({"role": "user", "content": "a"}, ["yes"], "messages must be a text or a list of messages, is dict"),
        ([{"role": "user", "content": "a"}, {"role": "system", "content": "b"}], ["yes"], "must end on a user turn"),
        ([], ["yes"], "the prompt: the messages must end on a user turn"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], ["yes"], "must end on a user turn"),
        ([{"role": "user"}], ["yes"], r"messages\[0\]: must be a mapping with the keys role and content"),
        ([{"role": "judge", "content": "a"}], ["yes"], r"messages\[0\]: unknown role 'judge' \(known: system, user"),
    ],
)
def test_a_wrong_text_is_refused_with_its_place(annotator, messages, responses, said):
    with pytest.raises(bench.UsageError, match=said):
        annotator.reward(messages, responses)


def test_any_sequence_of_texts_is_rewarded_as_a_list_is(annotator):
    expected = annotator.reward(PROMPT, RESPONSES)
    message = {"role": "user", "content": PROMPT}
    for responses in (tuple(RESPONSES), pd.Series(RESPONSES, index=[5, 5, 1]), np.array(RESPONSES)):
        assert annotator.reward(PROMPT, responses) == expected
        assert annotator.reward(pd.Series([message]), responses) == expected
        assert annotator.rewards(((PROMPT, responses),)) == [expected]


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ([(PROMPT,)], r"^batch\[0\]: must be \(messages, responses\), has 1 parts"),
        ([(PROMPT, ["yes"]), (PROMPT, ["yes"], 1)], r"^batch\[1\]: must be \(messages, responses\), has 3 parts"),
        ([PROMPT], r"^batch\[0\]: must be \(messages, responses\), is str"),
        ([(None, ["yes"])], r"^batch\[0\]: messages must be a text or a list of messages, is NoneType"),
        (None, r"^the batch: must be a list of \(messages, responses\), is NoneType"),
        ({PROMPT: ["yes"]}, r"^the batch: must be a list of \(messages, responses\), is dict"),
    ],
)
def test_what_is_no_batch_is_refused_with_its_place(annotator, batch, said):
    with pytest.raises(bench.UsageError, match=said):
        annotator.rewards(batch)


def test_a_batch_names_the_prompt_that_is_wrong(annotator):
    with pytest.raises(bench.UsageError, match=r"^batch\[1\]: response 0 is empty"):
        annotator.rewards([(PROMPT, ["yes"]), (PROMPT, [""])])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dtype": "fp16"}, "dtype 'fp16': must be auto, bf16 or fp32"),
        ({"device": "tpu"}, "device 'tpu': must be auto, cpu or cuda"),
        ({"pair": "tinny"}, "unknown pair 'tinny', did you mean 'tiny'"),
        ({"pair": ["tiny"]}, "pair must be a pair_id, is list"),
        ({"pair": None}, "pair must be a pair_id, is NoneType"),
        ({"registry": 3}, "registry must be a folder, is int"),
    ],
)
def test_an_unknown_name_is_refused_before_a_model_is_loaded(tiny_registry, options, said):
    with pytest.raises(bench.UsageError, match=said):
        bench.Annotator(**{"pair": "tiny", "registry": tiny_registry} | options)


def test_importing_the_interface_imports_neither_pandas_nor_torch():
    code = "import sys, bench; print(bench.Annotator and sorted({'numpy', 'pandas', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
