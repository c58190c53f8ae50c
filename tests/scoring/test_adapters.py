"""A LoRA adapter on a base: merged on load, named in the key, and refused in one line where it does not fit."""

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from chat_templates import CHATML
from huggingface_hub import constants
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tiny_models import config, entry, save_adapter, save_lora, save_tiny, tiny_model
from tiny_tokenizers import byte_level
from transformers import AutoModelForCausalLM, GPT2Config

from bench.entries import ModelSpec
from bench.registry import load_registry
from bench.schema import Dataset, DrsowError, Example, Message, PreconditionError, UsageError
from bench.scoring import fetch, models, passes
from bench.scoring.scorer import Scorer

COMMIT = "0123456789" * 4
EXAMPLE = Example("s/1", "s", (Message("user", "two"),), (("0", "three primes"), ("1", "no")))
FP32 = passes.resolved("fp32", "cpu")


def adapter_entry(model_id: str, adapter: str, *more: str, base: str = "base") -> str:
    source = ", ".join([f'adapter = "{adapter}"', f'base = "{base}"', *more])
    return f'[[models]]\nmodel_id = "{model_id}"\nsource = {{ {source} }}\nformat = "safetensors"\nmethod = "dpo"\n\n'


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """base/, an adapter of rank 4 on two of its kinds of layers in lora/, and what peft merges of both in merged/."""
    folder = tmp_path_factory.mktemp("adapters")
    chat = byte_level(eos="<|im_end|>", special=["<|im_start|>"])
    chat.chat_template = CHATML
    save_tiny(folder / "base", tokenizer=chat, seed=1)
    save_lora(folder / "lora", folder / "base", base_name=str(folder / "base"))
    base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    with warnings.catch_warnings():
        # peft uses names of transformers that are deprecated.
        warnings.simplefilter("ignore")
        adapted = PeftModel.from_pretrained(base, folder / "lora")
    adapted.merge_and_unload().save_pretrained(folder / "merged")
    chat.save_pretrained(folder / "merged")
    entries = entry("base", "base") + adapter_entry("mine", "lora") + entry("merged", "merged")
    (folder / "models.toml").write_text(entries)
    return folder


def logps(spec: ModelSpec, owner: ModelSpec) -> torch.Tensor:
    ready = passes.make_ready(passes.Work(spec, owner, Dataset("d", "d", "", (EXAMPLE,))), FP32)
    return torch.cat([torch.as_tensor(x) for x in Scorer(ready, FP32).examples_logps([EXAMPLE])[0]])


def test_an_adapter_scores_like_the_model_that_peft_merged(made):
    known = load_registry(made)
    base, mine, whole = (logps(known.model(name), known.model("base")) for name in ("base", "mine", "merged"))
    torch.testing.assert_close(mine, whole, rtol=0, atol=1e-5)
    assert (mine - base).abs().max() > 0.1


def test_an_adapter_is_merged_in_float32_and_then_cast(made):
    known = load_registry(made)
    found = fetch.fetch(known.model("mine"))
    exact = AutoModelForCausalLM.from_pretrained(made / "merged", dtype=torch.float32).state_dict()
    policy = models.load_policy(found.folder, dtype=torch.bfloat16, device="cpu", adapter=found.adapter)
    for name, weight in policy.named_parameters():
        assert torch.equal(weight, exact[name].bfloat16())


def test_the_revision_holds_the_base_and_the_digest_of_the_adapter(made, tmp_path):
    shutil.copytree(made, tmp_path / "copy")
    found = [fetch.fetch(load_registry(folder).model("mine")) for folder in (made, tmp_path / "copy")]
    base = fetch.fetch(load_registry(made).model("base"))
    first, lora, digest = found[0].revision.partition("+lora-sha256:")
    assert (first, lora, len(digest)) == (base.revision, "+lora-sha256:", 64)
    # The place does not matter, the weights do.
    assert found[1].revision == found[0].revision and found[0].folder == made / "base"
    path = tmp_path / "other"
    shutil.copytree(made, path)
    weights = load_file(path / "lora" / "adapter_model.safetensors")
    save_file({name: 2 * weight for name, weight in weights.items()}, path / "lora" / "adapter_model.safetensors")
    assert fetch.fetch(load_registry(path).model("mine")).revision != found[0].revision


def test_a_templates_owner_with_an_adapter_needs_the_base_alone(made):
    spec = load_registry(made).model("mine")
    assert fetch.fetch(spec, weights=False).folder == made / "base"
    assert spec.source.location == f"base + adapter {made / 'lora'}"


@pytest.fixture
def both(made, tmp_path) -> Path:
    """A folder with merged weights and the adapter's files, as a training script leaves them, beside a registry."""
    shutil.copytree(made / "merged", tmp_path / "out")
    shutil.copytree(made / "lora", tmp_path / "out", dirs_exist_ok=True)
    entries = entry("base", str(made / "base")) + entry("whole", "out") + adapter_entry("mine", "out")
    (tmp_path / "models.toml").write_text(entries)
    return tmp_path / "out"


BOTH = (
    "holds an adapter (adapter_config.json), and nothing says whether its weights contain it; write `adapter` and "
    "`base` into `source`, or, if they do, name a copy without adapter_config.json"
)


def test_a_folder_of_a_model_and_an_adapter_is_refused_as_a_model_and_read_as_an_adapter(both, made):
    known = load_registry(both.parent)
    for find in (fetch.locate, fetch.fetch):
        with pytest.raises(PreconditionError) as error:
            find(known.model("whole"))
        assert str(error.value) == f"whole: {both} {BOTH}"
    # Its tokenizer is read all the same.
    assert fetch.fetch(known.model("whole"), weights=False).folder == both
    mine, whole = logps(known.model("mine"), known.model("base")), load_registry(made).model("merged")
    torch.testing.assert_close(mine, logps(whole, whole), rtol=0, atol=1e-5)


def test_merged_weights_are_read_once_the_adapters_configuration_is_gone(both, made):
    (both / "adapter_config.json").unlink()
    whole, clean = load_registry(both.parent).model("whole"), load_registry(made).model("merged")
    assert torch.equal(logps(whole, whole), logps(clean, clean))


def changed(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def no_config(folder: Path) -> None:
    (folder / "adapter_config.json").unlink()


def pickled(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def other_kind(folder: Path) -> None:
    changed(folder / "adapter_config.json", peft_type="IA3")


def broken(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{")


@pytest.mark.parametrize(
    ("spoil", "code", "words"),
    [
        (no_config, 4, "has no adapter_config.json; name a LoRA adapter as peft saves it"),
        (pickled, 4, "has no adapter_model.safetensors; pickled weights are not read"),
        (other_kind, 1, "is of the kind 'IA3'; drsow merges LoRA adapters only"),
        (broken, 1, "adapter_config.json: broken JSON: "),
    ],
)
def test_a_folder_that_holds_no_lora_adapter_is_one_line(made, tmp_path, spoil, code, words):
    shutil.copytree(made / "lora", tmp_path / "lora")
    spoil(tmp_path / "lora")
    (tmp_path / "models.toml").write_text(entry("base", str(made / "base")) + adapter_entry("mine", "lora"))
    with pytest.raises(DrsowError) as error:
        fetch.fetch(load_registry(tmp_path).model("mine"))
    assert str(error.value).startswith(f"mine: adapter {tmp_path / 'lora'}: {words}")
    assert (error.value.code, str(error.value).count("\n")) == (code, 0)


LAYER = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
REMEDY = "it was made for another base; correct `base`"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {LAYER.format("A"): torch.zeros(4, 16)},
            f"the layer model.layers.0.self_attn.q_proj has 16 in there and 32 in the base: {REMEDY}",
        ),
        (
            {LAYER.format("B"): torch.zeros(48, 4)},
            f"the layer model.layers.0.self_attn.q_proj has 48 out there and 32 in the base: {REMEDY}",
        ),
        (
            {LAYER.format("A").replace("layers.0", "layers.7"): torch.zeros(4, 32)},
            f"changes the layer model.layers.7.self_attn.q_proj, which the base does not have: {REMEDY}",
        ),
        (
            {LAYER.format("A").replace("q_proj", "v_proj"): torch.zeros(4, 32)},
            "adapter_config.json and adapter_model.safetensors disagree about the layer "
            "model.layers.0.self_attn.v_proj",
        ),
        (
            {"base_model.model.lm_head.weight": torch.zeros(7, 32)},
            f"replaces the weight lm_head.weight of shape (7, 32), which the base has as (356, 32): {REMEDY}",
        ),
    ],
)
def test_an_adapter_of_another_base_is_named_by_its_layer(made, tmp_path, change, words):
    shutil.copytree(made / "lora", tmp_path / "lora")
    weights = load_file(made / "lora" / "adapter_model.safetensors")
    save_file(weights | change, tmp_path / "lora" / "adapter_model.safetensors")
    with pytest.raises(DrsowError) as error:
        models.load_policy(made / "base", dtype=torch.float32, device="cpu", adapter=tmp_path / "lora")
    assert str(error.value) == f"{tmp_path / 'lora'}: {words}"


def test_weights_that_an_adapter_lacks_are_not_made_up(made, tmp_path):
    shutil.copytree(made / "lora", tmp_path / "lora")
    weights = load_file(made / "lora" / "adapter_model.safetensors")
    for part in "AB":
        kept = {key: weight for key, weight in weights.items() if key != LAYER.format(part)}
        save_file(kept, tmp_path / "lora" / "adapter_model.safetensors")
        with pytest.raises(DrsowError) as error:
            models.load_policy(made / "base", dtype=torch.float32, device="cpu", adapter=tmp_path / "lora")
        lacking = LAYER.format(part).removeprefix("base_model.model.")
        words = f"adapter_model.safetensors lacks {lacking} (1 such weights); save the whole adapter again"
        assert str(error.value) == f"{tmp_path / 'lora'}: {words}"


def test_weights_that_an_adapters_configuration_does_not_name_are_not_left_out(made, tmp_path):
    save_adapter(tmp_path / "dora", made / "base", target_modules=["q_proj"], use_dora=True)
    path = tmp_path / "dora" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"use_dora": False}))
    with pytest.raises(
        DrsowError, match=r"has model\.layers\.0\.self_attn\.q_proj\.lora_magnitude_vector \(2 such"
    ) as error:
        models.load_policy(made / "base", dtype=torch.float32, device="cpu", adapter=tmp_path / "dora")
    assert str(error.value).endswith("which adapter_config.json does not name; correct it")


def reference_logits(base: Path, adapter: Path) -> torch.Tensor:
    """The logits of a base with its adapter as peft computes them, unmerged."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        return PeftModel.from_pretrained(model, adapter).eval()(input_ids=IDS).logits


def merged_logits(base: Path, adapter: Path) -> torch.Tensor:
    policy = models.load_policy(base, dtype=torch.float32, device="cpu", adapter=adapter)
    with torch.inference_mode():
        return policy(input_ids=IDS).logits


IDS = torch.arange(40)[None]
TIES = "the base ties its embedding and its head; untie them in a copy of the base, and name the copy as `base`"


@pytest.fixture(scope="module")
def tied(tmp_path_factory) -> Path:
    """A base whose embedding is its head too."""
    folder = tmp_path_factory.mktemp("tied") / "base"
    tiny_model(config("Llama", tie_word_embeddings=True), seed=1, scale=4).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("options", "saved", "layer"),
    [
        ({"target_modules": ["q_proj", "embed_tokens"]}, "auto", "model.embed_tokens"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, False, "model.embed_tokens"),
        ({"target_modules": ["q_proj", "lm_head"]}, "auto", "lm_head"),
        ({"target_modules": ["q_proj", "lm_head"]}, False, "lm_head"),
        ({"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}, "auto", "model.embed_tokens"),
        ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, "auto", "lm_head"),
        ({"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}, "auto", "lm_head"),
    ],
)
def test_an_adapter_of_a_tied_embedding_or_head_is_refused(tied, tmp_path, options, saved, layer):
    adapter = save_adapter(tmp_path / "lora", tied, embeddings=saved, **options)
    with pytest.raises(DrsowError) as error:
        merged_logits(tied, adapter)
    assert str(error.value) == f"{adapter}: changes {layer}, but {TIES}"


def test_weights_for_a_tied_embedding_and_its_head_must_be_equal(tied, tmp_path):
    adapter = save_adapter(tmp_path / "lora", tied, target_modules=["q_proj"], embeddings=True)
    path = adapter / "adapter_model.safetensors"
    weights = load_file(path)
    head, embedding = "base_model.model.lm_head.weight", "base_model.model.model.embed_tokens.weight"
    save_file(weights | {head: 2 * weights[head], embedding: 2 * weights[head]}, path)
    ours, theirs = merged_logits(tied, adapter), reference_logits(tied, adapter)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    save_file(weights | {head: 2 * weights[head]}, path)
    with pytest.raises(DrsowError, match=f"changes lm_head, but {TIES}$"):
        merged_logits(tied, adapter)


def test_an_untied_copy_of_a_tied_base_takes_the_adapter_as_peft_computes_it(tied, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(tied, dtype=torch.float32)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
    model.config.tie_word_embeddings = False
    model.save_pretrained(tmp_path / "copy")
    options = {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}
    adapter = save_adapter(tmp_path / "lora", tied, **options)
    ours, theirs = merged_logits(tmp_path / "copy", adapter), reference_logits(tied, adapter)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_an_adapter_of_other_layers_is_merged_into_a_tied_base(tied, tmp_path):
    adapter = save_adapter(tmp_path / "lora", tied, target_modules=["q_proj"])
    ours, theirs = merged_logits(tied, adapter), reference_logits(tied, adapter)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
        {"target_modules": ["q_proj"], "use_dora": True},
    ],
)
def test_an_adapter_of_an_untied_embedding_or_head_is_merged_as_peft_computes_it(made, tmp_path, options):
    adapter = save_adapter(tmp_path / "lora", made / "base", **options)
    ours, theirs = merged_logits(made / "base", adapter), reference_logits(made / "base", adapter)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory) -> Path:
    """A base whose linear layers store (in, out)."""
    folder = tmp_path_factory.mktemp("gpt2") / "base"
    shape = {"vocab_size": 97, "n_embd": 32, "n_head": 4, "n_layer": 2, "n_positions": 512}
    tiny_model(GPT2Config(**shape, bos_token_id=1, eos_token_id=2), seed=1, scale=4).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("layers", [["c_attn"], ["c_attn", "c_proj", "c_fc"]])
def test_an_adapter_of_layers_that_store_in_by_out_is_merged_as_peft_computes_it(gpt2, tmp_path, layers):
    adapter = save_adapter(tmp_path / "lora", gpt2, target_modules=layers)
    ours, theirs = merged_logits(gpt2, adapter), reference_logits(gpt2, adapter)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)


def test_a_layer_that_stores_in_by_out_names_the_side_that_differs(gpt2, tmp_path):
    adapter = save_adapter(tmp_path / "lora", gpt2, target_modules=["c_attn"])
    weights = load_file(adapter / "adapter_model.safetensors")
    factor = "base_model.model.transformer.h.0.attn.c_attn.lora_B.weight"
    save_file(weights | {factor: torch.zeros(32, 4)}, adapter / "adapter_model.safetensors")
    with pytest.raises(DrsowError) as error:
        merged_logits(gpt2, adapter)
    layer = "the layer transformer.h.0.attn.c_attn has 32 out there and 96 in the base"
    assert str(error.value) == f"{adapter}: {layer}: {REMEDY}"


@pytest.fixture(scope="module", params=["Mixtral", "Qwen3Moe", "GptOss"])
def experts(request, tmp_path_factory) -> Path:
    """A base whose experts are two weights of one layer, which each kind stores in its own order."""
    folder = tmp_path_factory.mktemp("experts") / "base"
    more = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    tiny_model(config(request.param, **more, head_dim=8), seed=1, scale=4).save_pretrained(folder)
    return folder


EXPERTS = ["experts.gate_up_proj", "experts.down_proj"]


@pytest.mark.parametrize("weights", [EXPERTS[:1], EXPERTS[1:], EXPERTS])
def test_an_adapter_of_experts_is_merged_as_peft_computes_it(experts, tmp_path, weights):
    adapter = save_adapter(tmp_path / "lora", experts, target_modules=["q_proj"], target_parameters=weights)
    ours, theirs = merged_logits(experts, adapter), reference_logits(experts, adapter)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)
    without = AutoModelForCausalLM.from_pretrained(experts, dtype=torch.float32)(input_ids=IDS).logits
    assert (ours - without).abs().max() > 0.1


def test_an_adapter_of_other_experts_is_named_by_its_weight(experts, tmp_path):
    adapter = save_adapter(tmp_path / "lora", experts, target_modules=[], target_parameters=EXPERTS)
    weights, factor = load_file(adapter / "adapter_model.safetensors"), "layers.1.mlp.experts.base_layer.lora_A"
    name = f"base_model.model.model.{factor}.weight"
    save_file(weights | {name: torch.zeros(24, 32)}, adapter / "adapter_model.safetensors")
    with pytest.raises(DrsowError) as error:
        merged_logits(experts, adapter)
    assert str(error.value) == f"{adapter}: model.{factor}.weight has another shape than the base needs: {REMEDY}"


@pytest.mark.parametrize("base", ["tied", "untied"])
def test_an_adapter_that_trains_single_tokens_is_refused(made, tied, tmp_path, base):
    folder = tied if base == "tied" else made / "base"
    adapter = save_adapter(tmp_path / "lora", folder, target_modules=["q_proj"], trainable_token_indices=[3, 4])
    with pytest.raises(DrsowError) as error:
        merged_logits(folder, adapter)
    assert str(error.value) == (
        f"{adapter}: trains single tokens of model.embed_tokens (trainable_token_indices), which drsow does not merge; "
        "merge it with peft and name the merged folder"
    )


@pytest.fixture
def cache(made, tmp_path, monkeypatch) -> Path:
    """The hub's cache with the repositories me/base and me/lora."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("base", "lora"):
        shutil.copytree(made / name, tmp_path / "hub" / f"models--me--{name}" / "snapshots" / COMMIT)
    return tmp_path / "hub"


BASE = entry("base", "x").replace('folder = "x"', f'repo = "me/base", revision = "{COMMIT}"')


def test_an_adapter_of_the_hub_has_its_commit_in_the_revision_and_must_name_its_base(cache, tmp_path):
    config = cache / "models--me--lora" / "snapshots" / COMMIT / "adapter_config.json"
    changed(config, base_model_name_or_path="me/base")
    pinned = f'revision = "{COMMIT}"'
    entries = (
        BASE + adapter_entry("mine", "me/lora", pinned) + adapter_entry("any", "me/lora", pinned, "other_base = true")
    )
    (tmp_path / "models.toml").write_text(entries)
    known = load_registry(tmp_path)
    found = fetch.fetch(known.model("mine"))
    assert found.revision.startswith(f"{COMMIT}+lora-{COMMIT}-sha256:") and found.adapter == config.parent
    changed(config, base_model_name_or_path="me/elsewhere")
    with pytest.raises(DrsowError) as error:
        fetch.locate(known.model("mine"))
    assert str(error.value) == (
        "mine: adapter me/lora: was made for me/elsewhere, and its base 'base' is me/base; correct `base`, or write "
        "`other_base = true` into its source if both have the same weights"
    )
    assert fetch.locate(known.model("any")).adapter == config.parent


def test_a_repository_of_a_model_and_an_adapter_is_refused_as_a_model(cache, made, tmp_path):
    folder = cache / "models--me--base" / "snapshots" / COMMIT
    shutil.copytree(made / "lora", folder, dirs_exist_ok=True)
    (tmp_path / "models.toml").write_text(BASE)
    spec = load_registry(tmp_path).model("base")
    with pytest.raises(PreconditionError) as error:
        fetch.locate(spec)
    assert str(error.value) == f"base: me/base {BOTH}"
    assert fetch.locate(spec, weights=False).folder == folder


def test_an_adapter_that_is_not_here_is_named_with_the_command_that_fetches_it(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shutil.rmtree(cache / "models--me--lora")
    (tmp_path / "models.toml").write_text(BASE + adapter_entry("mine", "me/lora"))
    spec = load_registry(tmp_path).model("mine")
    assert fetch.locate(spec) is None
    with pytest.raises(
        PreconditionError, match=r"^mine: not on this machine, .*; run `drsow fetch mine` \(with your --registry, if "
    ):
        fetch.fetch(spec)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            adapter_entry("mine", "nowhere"),
            "mine: source.adapter: 'nowhere' is neither a folder here nor a hub repository (owner/name)",
        ),
        (
            adapter_entry("mine", "me/lora", base="bsae"),
            "mine: source.base: unknown model 'bsae', did you mean 'base'?",
        ),
        (
            adapter_entry("one", "me/lora") + adapter_entry("two", "me/lora", base="one"),
            "two: source.base: 'one' has an adapter",
        ),
        (
            adapter_entry("mine", "me/lora").replace("safetensors", "gguf"),
            "mine: format: its base, 'base', is 'safeten",
        ),
        (adapter_entry("mine", "me/lora", "rank = 4"), "mine: unknown field 'source.rank'"),
    ],
)
def test_a_bad_entry_of_an_adapter_is_named_by_its_field(tmp_path, more, words):
    (tmp_path / "models.toml").write_text(BASE + more)
    with pytest.raises(UsageError) as error:
        load_registry(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'models.toml'}: {words}")
