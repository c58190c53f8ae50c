"""What decides a number beside model and text: the template's contribution, the arithmetic; and what a set cost."""

import hashlib
import json
import os
import shutil

import pytest
from chat_templates import CHATML, GEMMA
from safetensors.torch import load_file, save_file
from tiny_tokenizers import byte_level

from bench.entries import AdapterSource
from bench.lookup import Lookup, one_set
from bench.registry import load_registry
from bench.schema import Dataset, DrsowError, Example, Message, PreconditionError
from bench.scoring import located, passes, run
from bench.scoring.chat import Template
from bench.scoring.identity import owner_digest, template_digest
from bench.scoring.located import file_digest
from bench.scoring.models import load_tokenizer
from bench.scoring.passes import Options, Share
from bench.sources import FileSource, FolderSource
from bench.store.folder import Store
from bench.verbs.told import lookup_of

OPTIONS = Options(dtype="float32", device="cpu", batch_tokens=8)
ROWS = tuple(
    Example(str(i), "", (Message("user", f"{i}?"),), (("chosen", f"yes, {i * 7}"), ("rejected", "no " * 9)))
    for i in range(12)
)
DATA = Dataset("rows.jsonl", "rows", "d1", ROWS)


def saved(folder, template: str, *, special: tuple = ("<|im_start|>",), **more: object):
    tokenizer = byte_level(eos="<|im_end|>", special=list(special), **more)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


def test_two_owners_that_contribute_the_same_share_a_digest(tmp_path):
    one = saved(tmp_path / "one", CHATML)
    # A token that the template cannot write is of its owner alone.
    other = saved(tmp_path / "other", CHATML, special=("<|im_start|>", "[PAD]"))
    assert template_digest(one) == template_digest(other)


def test_whatever_reaches_the_text_is_in_the_digest(tmp_path):
    folders = [
        saved(tmp_path / "plain", CHATML),
        saved(tmp_path / "text", CHATML + " "),
        saved(tmp_path / "end", CHATML, special=()),
        saved(tmp_path / "gemma", GEMMA, bos="<bos>", adds_bos=True, special=("<end_of_turn>",)),
        saved(tmp_path / "bos", GEMMA, bos="<s>", adds_bos=True, special=("<end_of_turn>",)),
        saved(tmp_path / "keeps", GEMMA, bos="<bos>", adds_bos=False, special=("<end_of_turn>",)),
        saved(tmp_path / "turn", GEMMA, bos="<bos>", adds_bos=True, special=()),
    ]
    assert len({template_digest(folder) for folder in folders}) == len(folders)


@pytest.mark.parametrize(
    ("template", "eos"),
    # The second template holds the EOS, but not as the end of a turn.
    [(CHATML, "<|endoftext|>"), ("{{ '<|end|>' }}" + CHATML, "<|end|>")],
)
def test_an_end_of_text_that_is_cut_from_responses_is_in_the_digest(tmp_path, template, eos):
    folders = []
    for own in ("<|im_end|>", eos):
        tokenizer = byte_level(eos=own, special=["<|im_start|>", "<|im_end|>", eos])
        tokenizer.chat_template = template
        folders.append(tmp_path / own.strip("<|>"))
        tokenizer.save_pretrained(folders[-1])
    owners = [Template(load_tokenizer(folder)) for folder in folders]
    assert [owner.without_end(f"no{eos}") for owner in owners] == [f"no{eos}", "no"]
    assert template_digest(folders[0]) != template_digest(folders[1])


def test_an_end_of_turn_that_a_template_puts_together_is_in_the_digest(tmp_path):
    joined = "{% for m in messages %}{{ '<' + m.role + '>' + m.content + '</' + m.role + '>' }}{% endfor %}"
    joined += "{% if add_generation_prompt %}<assistant>{% endif %}"
    with_end, without = (saved(tmp_path / n, joined, special=s) for n, s in (("a", ("</assistant>",)), ("b", ())))
    assert [Template(load_tokenizer(folder)).end_token for folder in (with_end, without)] == ["</assistant>", ""]
    assert template_digest(with_end) != template_digest(without)


@pytest.mark.parametrize("name", ["tokenizer.json", "special_tokens_map.json", "tokenizer_config.json"])
@pytest.mark.parametrize(("content", "words"), [
    ('{"a', "cannot be read as JSON"), ("[]", "holds no JSON object"), ("[" * 100_000, "cannot be read as JSON"),
])  # fmt: skip
def test_a_broken_file_of_a_tokenizer_is_named_in_one_line(tmp_path, name, content, words):
    (saved(tmp_path, CHATML) / name).write_text(content)
    with pytest.raises(DrsowError, match=rf"{name}: {words}[^\n]*; get the tokenizer's files again$"):
        template_digest(tmp_path)


@pytest.fixture
def twins(tiny_registry, tmp_path):
    """The tiny registry, with a twin of the strong model's template under another name and with other weights."""
    folder = shutil.copytree(tiny_registry, tmp_path / "registry")
    shutil.copytree(folder / "weak", folder / "twin")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (folder / "strong" / name).exists():
            shutil.copy(folder / "strong" / name, folder / "twin" / name)
    text = (folder / "models.toml").read_text()
    first = text[: text.index("[[models]]", 1)]
    (folder / "models.toml").write_text(text + first.replace("tiny-strong", "tiny-twin").replace('"strong"', '"twin"'))
    return load_registry(folder)


def test_a_pass_under_a_twin_of_the_template_is_not_scored_again(twins, tmp_path):
    store, weak = Store(tmp_path / "results"), twins.model("tiny-weak")
    strong, twin = twins.model("tiny-strong"), twins.model("tiny-twin")
    assert owner_digest(strong) == owner_digest(twin)
    ready = [passes.make_ready(passes.Work(weak, owner, DATA), OPTIONS) for owner in (strong, twin)]
    assert ready[0].key == ready[1].key
    run.score_missing(ready[0], store, OPTIONS)
    lookup = lookup_of(twins)
    assert [s.info()["template"] for s in lookup.find(store, "tiny-weak", DATA, "tiny-twin")] == ["tiny-strong"]
    # Its own template is none, and a set under another is not its.
    assert lookup.find(store, "tiny-weak", DATA, "tiny-weak") == []


def test_a_renamed_data_set_is_one_pass(twins):
    work = passes.Work(twins.model("tiny-strong"), twins.model("tiny-strong"), DATA)
    copy = work._replace(dataset=DATA._replace(data_id="copy.jsonl", slug="copy"))
    assert passes.make_ready(work, OPTIONS).key == passes.make_ready(copy, OPTIONS).key


@pytest.fixture
def strong(tiny_registry) -> passes.Work:
    spec = load_registry(tiny_registry).model("tiny-strong")
    return passes.Work(spec, spec, DATA)


def test_the_arithmetic_is_in_the_key_and_float32_is_one_of_two(strong):
    key = passes.make_ready(strong, OPTIONS).key
    assert key.ops in ("cpu-torch", "cpu-onednn")
    assert passes.make_ready(strong, OPTIONS._replace(dtype="bfloat16")).key.ops.startswith("cpu-")


def test_what_other_arithmetic_began_is_not_gone_on_with(strong, tmp_path, capsys):
    store, ready = Store(tmp_path), passes.make_ready(strong, OPTIONS)
    other = ready._replace(key=ready.key._replace(ops="cpu-of-another-make"))
    run.score_missing(other, store, OPTIONS, Share(last=run.Fraction(1, 2)))
    begun = store.score_set(other.key)
    assert begun.has_parts and not begun.complete
    with pytest.raises(DrsowError, match="was begun with cpu-of-another-make, and this process computes with cpu-"):
        run.score_missing(ready, store, OPTIONS, Share(run.Fraction(1, 2)))
    before = sorted(path.name for path in begun.folder.iterdir())
    capsys.readouterr()
    own = run.score_missing(ready, store, OPTIONS)
    assert own.complete and own.folder != begun.folder
    assert sorted(path.name for path in begun.folder.iterdir()) == before
    assert "it begins a separate set" in capsys.readouterr().err


def test_a_resumed_runs_manifest_counts_all_of_its_work(strong, tmp_path):
    ready, half = passes.make_ready(strong, OPTIONS), run.Fraction(1, 2)
    whole = run.score_missing(ready, Store(tmp_path / "whole"), OPTIONS)
    store = Store(tmp_path / "halves")
    first = run.score_missing(ready, store, OPTIONS, Share(last=half))
    spent = first.spent()
    assert 0 < spent["n_computed_tokens"] < whole.info()["n_computed_tokens"]
    run.score_missing(ready, store, OPTIONS)
    info = store.score_set(ready.key).info()
    for name in ("n_steps", "n_computed_tokens", "halved"):
        assert info[name] == whole.info()[name], name
    assert info["duration_s"] >= round(spent["duration_ms"] / 1000, 1)
    parts = [sorted(p.name for p in each.folder.glob("part-*")) for each in (whole, first)]
    assert parts[0] == parts[1] and len(parts[0]) > 2


def test_a_cost_that_cannot_be_read_costs_a_count_and_not_the_scores(strong, tmp_path):
    ready, store = passes.make_ready(strong, OPTIONS), Store(tmp_path)
    run.score_missing(ready, store, OPTIONS, Share(last=run.Fraction(1, 2)))
    cost = sorted(store.score_set(ready.key).folder.glob("spent-*.json"))[0]
    assert json.loads(cost.read_text())["n_steps"] > 0
    cost.write_text("{")
    assert run.score_missing(ready, store, OPTIONS).complete


def test_a_lookup_without_the_owners_files_goes_by_name(tiny_registry, strong, tmp_path):
    store = Store(tmp_path)
    run.score_missing(passes.make_ready(strong, OPTIONS), store, OPTIONS)
    assert len(Lookup().find(store, "tiny-strong", DATA, "tiny-strong")) == 1
    assert Lookup().find(store, "tiny-strong", DATA, "tiny-weak") == []


def test_scores_of_files_that_have_changed_since_are_not_read(twins, tmp_path):
    store, strong = Store(tmp_path / "results"), twins.model("tiny-strong")
    work = passes.Work(strong, strong, DATA)
    run.score_missing(passes.make_ready(work, OPTIONS), store, OPTIONS)
    old = lookup_of(twins).find(store, "tiny-strong", DATA, "tiny-strong")
    assert len(old) == 1
    weights = strong.source.folder / "model.safetensors"
    save_file({name: 1.5 * each for name, each in load_file(weights).items()}, weights, {"format": "pt"})
    with pytest.raises(PreconditionError, match=r"tiny-strong in float32 by .*, but its files have changed"):
        one_set(store, DATA, lookup_of(twins), "tiny-strong", "tiny-strong")
    new = run.score_missing(passes.make_ready(work, OPTIONS), store, OPTIONS)
    # Both sets are stored; that of today's files is meant.
    assert [s.folder for s in lookup_of(twins).find(store, "tiny-strong", DATA)] == [new.folder]
    # Nothing says what the files are where they are not.
    shutil.rmtree(strong.source.folder)
    assert {s.folder for s in lookup_of(twins).find(store, "tiny-strong", DATA)} == {old[0].folder, new.folder}


def test_a_large_files_digest_is_kept_until_the_file_changes_or_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(located, "KEPT_BYTES", 8)
    monkeypatch.setattr(located, "SETTLED_NS", -(10**12))
    read = []
    monkeypatch.setattr(located, "file_digest", lambda path: read.append(path) or file_digest(path))
    folder = tmp_path / "model"
    folder.mkdir()
    path, other = folder / "model.safetensors", tmp_path / "other"

    def digest() -> str:
        located._digest_at.cache_clear()  # as in another process
        return located.folder_digest(folder)

    path.write_bytes(b"weights 1")
    first = digest()
    assert digest() == first and len(read) == 1
    # A file of the same size and time takes its place.
    other.write_bytes(b"weights 2")
    times = path.stat()
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(path)
    second = digest()
    assert second != first and len(read) == 2
    # Written over, with the time set back.
    path.write_bytes(b"weights 3")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert digest() not in (first, second) and len(read) == 3
    kept = next((tmp_path / "cache" / "drsow" / "digests").iterdir())
    kept.write_text("{")
    digest()
    assert len(read) == 4


def test_a_digest_of_a_file_written_just_now_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(located, "KEPT_BYTES", 8)
    (tmp_path / "model.safetensors").write_bytes(b"weights 1")
    located.folder_digest(tmp_path)
    assert not (tmp_path / "cache").exists()


def test_the_digest_covers_the_weights_in_subfolders_that_the_index_or_the_configuration_names(tmp_path):
    def digest(**files: str) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        (folder / "w").mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        for name, text in files.items():
            (folder / name.replace("__", "/").replace("_", ".")).write_text(text)
        return located.folder_digest(folder)

    index = {"model_safetensors_index_json": json.dumps({"weight_map": {"a": "w/x.safetensors", "b": "y.safetensors"}})}
    assert digest(**index, w__x_safetensors="1") != digest(**index, w__x_safetensors="2")
    named = {"config_json": json.dumps({"transformers_weights": "w/x.safetensors"})}
    assert digest(**named, w__x_safetensors="1") != digest(**named, w__x_safetensors="2")
    # What transformers does not read does not count, and a file at the top counts once: stored keys stay.
    whole = digest(**index, model_safetensors="3")
    assert whole == digest(**index, model_safetensors="3", w__x_safetensors="1")
    top = {"model_safetensors_index_json": json.dumps({"weight_map": {"b": "y.safetensors"}}), "y_safetensors": "4"}
    texts = {
        "config.json": "{}",
        "model.safetensors.index.json": top["model_safetensors_index_json"],
        "y.safetensors": "4",
    }
    lines = "".join(f"{name}\0{hashlib.sha256(text.encode()).hexdigest()}\n" for name, text in texts.items())
    assert digest(**top) == f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


@pytest.mark.parametrize("name", ["../x.safetensors", "/x.safetensors", "x.bin"])
def test_weights_outside_of_the_folder_and_pickled_ones_that_an_index_names_are_refused(tmp_path, name):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(PreconditionError, match=r"index.json: names the weights .*, but weights must be .safetensors"):
        located.folder_digest(tmp_path)


def test_a_record_holds_no_path_outside_of_the_working_folder(tmp_path, monkeypatch):
    folder, file = (
        FolderSource(folder=tmp_path / "registry" / ".." / "mine"),
        FileSource(file="/x/a.gguf", sha256="0" * 64),
    )
    (tmp_path / "mine").mkdir()
    adapter = AdapterSource(adapter=str(tmp_path / "mine"), base="base")
    assert [passes.recorded(each) for each in (folder, file, adapter)] == ["mine", "a.gguf", "base + adapter mine"]
    monkeypatch.chdir(tmp_path.parent)
    assert passes.recorded(folder) == f"{tmp_path.name}/mine"
