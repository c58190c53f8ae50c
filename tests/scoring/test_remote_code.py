"""A model whose repository holds code of its own: the registry's trust in it reaches whatever loads the files."""

import json
from pathlib import Path

import pytest
import transformers.dynamic_module_utils
from chat_templates import CHATML
from huggingface_hub import constants
from tiny_models import save_tiny
from tiny_tokenizers import byte_level

from bench.prefer.resumed import Sampling
from bench.registry import load_registry
from bench.schema import Dataset, DrsowError, Example, Message
from bench.scoring.bits import bits_per_byte
from bench.scoring.embed import embed_with
from bench.scoring.passes import Work, make_ready
from bench.scoring.run import score_missing
from bench.scoring.verify import verify
from bench.verbs.lock import write_lock
from bench.verbs.sample import sample_candidates
from bench.verbs.session import Session, open_session

COMMIT = "0123456789" * 4

CODE = """
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

class OddConfig(LlamaConfig):
    model_type = "odd"

class OddModel(LlamaForCausalLM):
    config_class = OddConfig

class OddTokenizer(PreTrainedTokenizerFast):
    pass
"""

ENTRY = f"""
[[models]]
model_id = "MODEL"
source = {{ repo = "me/odd", revision = "{COMMIT}", trust_remote_code = TRUSTED }}
format = "safetensors"
method = "sft"
n_params = 30_000
licence = "apache-2.0"
"""

ROW = Example("1", "", (Message("user", "Is 7 prime?"),), (("0", "yes"), ("1", "no, it is not")))
ROWS = Dataset("rows", "rows", "0", (ROW,))


def changed(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.fixture
def session(tmp_path, monkeypatch) -> Session:
    """A registry whose models `trusted` and `doubted` are one repository of the hub's cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    # The code is copied there and imported from there.
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    folder = tmp_path / "hub" / "models--me--odd" / "snapshots" / COMMIT
    chat = byte_level(eos="<|im_end|>", special=["<|im_start|>"])
    chat.chat_template = CHATML
    save_tiny(folder, tokenizer=chat, seed=1)
    (folder / "odd.py").write_text(CODE)
    own = {"AutoConfig": "odd.OddConfig", "AutoModelForCausalLM": "odd.OddModel"}
    changed(folder / "config.json", model_type="odd", auto_map=own)
    mapped = {"AutoTokenizer": [None, "odd.OddTokenizer"]}
    changed(folder / "tokenizer_config.json", tokenizer_class="OddTokenizer", auto_map=mapped)
    entries = [("trusted", "true"), ("doubted", "false")]
    (tmp_path / "models.toml").write_text("".join(ENTRY.replace("MODEL", m).replace("TRUSTED", t) for m, t in entries))
    return open_session(load_registry(tmp_path), dtype="fp32", device="cpu", results=tmp_path / "results")


def scored(session: Session, model_id: str, owner: str):
    work = Work(session.registry.model(model_id), session.registry.model(owner), ROWS)
    ready = make_ready(work, session.options)
    return ready, score_missing(ready, session.store, session.options)


def test_trusted_code_scores_verifies_embeds_and_measures(session):
    ready, score_set = scored(session, "trusted", "trusted")
    table = verify(score_set, ready, session.options, n_rows=1)
    assert table["shift_a_token"].abs().max() < 1e-4
    spec = session.registry.model("trusted")
    assert embed_with(spec, (ROW,), session.options).shape == (2, 32)
    assert bits_per_byte(spec, (ROW,)) > 0


def test_trusted_code_samples(session, tmp_path):
    out = tmp_path / "candidates.jsonl"
    wish = Sampling(n=2, max_new_tokens=3, keep_empty=True)
    assert sample_candidates(session, ROWS, "trusted", wish, out=out) == 0
    assert len(out.read_text().splitlines()) == 1


def test_code_that_is_not_trusted_does_not_run(session):
    with pytest.raises(DrsowError, match="cannot be loaded"):
        scored(session, "doubted", "trusted")


def test_a_templates_owner_is_trusted_by_its_own_entry(session):
    with pytest.raises(DrsowError, match="tokenizer cannot be loaded"):
        scored(session, "trusted", "doubted")


def test_a_lock_names_the_code_that_runs(session, tmp_path):
    write_lock(session.registry, ["trusted"], tmp_path / "pairs.lock")
    assert "odd.py" in json.loads((tmp_path / "pairs.lock").read_text())["trusted"]["files"]
