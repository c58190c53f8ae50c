"""Loads a tokenizer or a model from a folder of safetensors."""

import contextlib
import logging
import math
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import huggingface_hub.utils
import torch
import transformers
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from bench.entries import NoiseSource
from bench.schema import DrsowError
from bench.scoring import checked, whole
from bench.scoring.forward import preparing
from bench.scoring.forward.device import keep_freed_memory
from bench.scoring.forward.engine import Prepared
from bench.scoring.forward.layers import fill
from bench.scoring.forward.ops import choose
from bench.scoring.garbage import uncollected
from bench.scoring.located import Located, weight_files
from bench.scoring.merging import merged
from bench.scoring.noise import add_noise

TORCH_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
"""torch's dtypes by full name."""

_ONE_AT_A_TIME = threading.RLock()
"""Held while something is loaded: transformers changes torch's default dtype for the whole process meanwhile, and what
another thread loads or checks then would get that dtype."""


def load_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerFast:
    """The tokenizer of a folder.

    Raises:
        DrsowError: There is no tokenizer, or only a slow one, which has no offsets.
    """
    try:
        with loading(f"{folder}: its tokenizer"), uncollected():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except DrsowError as error:
        raise whole.without_tokenizer(folder, error) from error
    # transformers keeps the list that it made the tokenizer of: half a million pairs of texts for Gemma's.
    if getattr(tokenizer, "_merges", None):
        tokenizer._merges = []
    if not tokenizer.is_fast:
        raise DrsowError(f"{folder}: its tokenizer has no tokenizer.json")
    return tokenizer


_HELD: WeakValueDictionary[tuple[Path, str, bool], PreTrainedTokenizerFast] = WeakValueDictionary()


def shared_tokenizer(located: Located) -> PreTrainedTokenizerFast:
    """The tokenizer of a model's files, as `load_tokenizer` reads it; one object while somebody holds it. Not to be
    changed."""
    key = (located.folder, located.revision, located.trust_remote_code)
    found = _HELD.get(key)
    if found is None:
        found = _HELD[key] = load_tokenizer(located.folder, trust_remote_code=located.trust_remote_code)
    return found


def context_tokens(folder: Path, *, trust_remote_code: bool = False) -> int:
    """The longest sequence that the model's configuration allows, in tokens."""
    with loading(f"{folder}: its configuration"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code).get_text_config()
        return int(config.max_position_embeddings)


def n_embedded(folder: Path, *, trust_remote_code: bool = False) -> int:
    """Number of token ids in the model's embedding; a tokenizer may have more."""
    with loading(f"{folder}: its configuration"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code).get_text_config()
        return int(config.vocab_size)


def load_model(
    folder: Path,
    *,
    dtype: torch.dtype,
    device: str,
    trust_remote_code: bool = False,
    change: NoiseSource | Path | None = None,
    revision: str | None = None,
) -> Prepared:
    """Loads a causal language model for the engine; a model too large for one GPU is spread over all GPUs.

    Args:
        folder: A folder with its configuration and safetensors.
        dtype: The dtype of the weights.
        device: "cpu" or "cuda".
        trust_remote_code: Whether code that comes with the model may run.
        change: The noise to add to the weights, or the folder of the LoRA adapter to merge into them, in float32 before
            the cast.
        revision: Commit or digest of the model's files. If a model with these files passed the engine's check on this
            machine before, it is not checked again; None always checks.

    Raises:
        DrsowError: A file cannot be read, a weight is missing, or the engine does not support the model.
    """
    keep_freed_memory()
    with _ONE_AT_A_TIME:
        spread = device == "cuda" and torch.cuda.device_count() > 1 and not _fits_one_gpu(folder, dtype)
        # Directly to the GPU: on the way through the CPU's memory the whole model would need room there.
        places = "auto" if spread else "cuda" if device == "cuda" else None
        model = _read(folder, dtype=dtype, device_map=places, trust_remote_code=trust_remote_code)
        if any(weight.is_meta for weight in model.parameters()):
            raise DrsowError(f"{folder}: the GPUs together cannot hold it in {dtype}")
        if isinstance(change, Path):
            _merge(model, folder, change, trust_remote_code=trust_remote_code)
        # The check runs before the noise is added: rounding moves a noisy model's numbers by more than it allows.
        prepared = _prepared(model, None if trust_remote_code else revision)
        if isinstance(change, NoiseSource) and change.noise > 0:
            _add_noise(model, folder, change, trust_remote_code=trust_remote_code)
        return prepared


def _add_noise(model: PreTrainedModel, folder: Path, noise: NoiseSource, *, trust_remote_code: bool) -> None:
    """Replaces a prepared model's weights by those of its files with noise, added in float32 on the CPU, then cast."""
    exact = _read(folder, dtype=torch.float32, device_map=None, trust_remote_code=trust_remote_code)
    add_noise(exact, noise=noise.noise, seed=noise.seed)
    # The weights go into a model that transformers cast, which keeps some of them in float32.
    for weight, broken in zip(model.parameters(), exact.parameters(), strict=True):
        fill(weight, broken)


def _prepared(model: PreTrainedModel, revision: str | None) -> Prepared:
    """A model with the engine's attention and layers, checked unless it passed the check before.

    On a GPU it is always checked, because the check is also what compiles its operations. A model with its own code has
    no revision here: the digest of a folder does not cover that code.
    """
    ops = choose(model.device, model.dtype)
    if revision is None or ops.without:
        return preparing.prepare(model, ops=ops)
    check = checked.Check(revision, str(model.dtype).removeprefix("torch."), ops.name)
    if checked.passed_utc(check):
        return preparing.prepare_checked(model, ops)
    prepared = preparing.prepare(model, ops=ops)
    checked.keep(check)
    return prepared


@torch.no_grad()
def _merge(model: PreTrainedModel, folder: Path, adapter: Path, *, trust_remote_code: bool) -> None:
    """Replaces a model's weights by those of its files with an adapter, merged in float32 on the CPU, then cast."""
    exact = _read(folder, dtype=torch.float32, device_map=None, trust_remote_code=trust_remote_code)
    with loading(f"{adapter}: the adapter"):
        whole = merged(exact, adapter)
    sources = dict(whole.named_parameters())
    for name, weight in model.named_parameters():
        weight.copy_(sources[name])


def widened(prepared: Prepared, folder: Path) -> Prepared | None:
    """A model on a GPU in float32, in place: exact and without its files being read again.

    Returns:
        None if that would not be exact (its files hold more than bfloat16, or it is spread over
        GPUs) or if the GPU has no room.
    """
    model = prepared.model
    alone = model.device.type == "cuda" and len({weight.device for weight in model.parameters()}) == 1
    if not alone or _stored_dtypes(folder) != {"BF16"} or not _fits_one_gpu(folder, torch.float32, kept=model):
        return None
    with _ONE_AT_A_TIME:
        return preparing.prepare(model.float())


def _stored_dtypes(folder: Path) -> set[str]:
    """The dtypes of the weights in a model's files, as safetensors names them."""
    return {weight.get_dtype() for weight in _stored(folder)}


def _stored(folder: Path) -> Iterator[Any]:
    """The weights in a model's files as safetensors' slices, whose numbers are not read."""
    for path in weight_files(folder):
        with safe_open(path, "pt") as weights:
            yield from (weights.get_slice(name) for name in weights.keys())  # noqa: SIM118


def _fits_one_gpu(folder: Path, dtype: torch.dtype, *, kept: PreTrainedModel | None = None) -> bool:
    """Whether the first GPU holds a model's weights and a fifth of them for its activations.

    `kept`: the model itself in a smaller dtype, whose memory is used again.
    """
    n_weights = sum(math.prod(weight.get_shape()) for weight in _stored(folder))
    # What the model before this one left lies in torch's own pool, which the driver does not count as free.
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    ours = 0 if kept is None else sum(weight.nbytes for weight in kept.parameters())
    return 1.2 * n_weights * dtype.itemsize < free + ours


def load_policy(
    folder: Path, *, dtype: torch.dtype, device: str, trust_remote_code: bool = False, adapter: Path | None = None
) -> PreTrainedModel:
    """Loads an unchanged causal language model of transformers, to sample from or tune; errors as in `load_model`.

    `adapter`: the folder of a LoRA adapter that is merged into the weights.
    """
    keep_freed_memory()
    model = _read(folder, dtype=dtype, device_map=None, trust_remote_code=trust_remote_code)
    if adapter is not None:
        _merge(model, folder, adapter, trust_remote_code=trust_remote_code)
    return model.to(device).eval()


def located_policy(found: Located, *, dtype: torch.dtype, device: str) -> PreTrainedModel:
    """`load_policy` of located files, with their adapter."""
    trusted = found.trust_remote_code
    return load_policy(found.folder, dtype=dtype, device=device, trust_remote_code=trusted, adapter=found.adapter)


def _read(folder: Path, *, dtype: torch.dtype, device_map: str | None, trust_remote_code: bool) -> PreTrainedModel:
    with loading(f"{folder}: the model"), uncollected():
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        model, found = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            device_map=device_map,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **whole.quantisation(folder, config),
        )
    whole.check_missing(str(folder), found)
    whole.check_left_out(str(folder), model, found["unexpected_keys"])
    # Beside quantised weights transformers leaves the others in their files' dtype.
    for weight in model.parameters():
        if weight.dtype in (torch.bfloat16, torch.float16):
            weight.data = weight.data.to(dtype)
    model.set_attn_implementation(preparing.own_attention(model))
    return model


@contextlib.contextmanager
def loading(name: str) -> Iterator[None]:
    """Silences transformers while it loads something, and turns its exceptions into one clear error."""
    # A GGUF file that was cut off gives struct.error or IndexError.
    unreadable = (
        AttributeError, ImportError, LookupError, OSError, RuntimeError, SafetensorError, TypeError, ValueError,
        struct.error,
    )  # fmt: skip
    with quiet():
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except unreadable as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DrsowError(f"{name} cannot be loaded: {reason}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps transformers' progress bars and notes off stderr, where drsow shows its own progress; one thread at a
    time, because these settings are the whole process's."""
    with _ONE_AT_A_TIME, without_bars():
        level = transformers.logging.get_verbosity()
        transformers.logging.set_verbosity(logging.ERROR)
        try:
            yield
        finally:
            transformers.logging.set_verbosity(level)


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """Turns the progress bars of transformers and of the hub off, and afterwards on again if they were on."""
    hubs_were_off = huggingface_hub.utils.are_progress_bars_disabled()
    were_on = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        if were_on:
            transformers.utils.logging.enable_progress_bar()
        if hubs_were_off:
            huggingface_hub.utils.disable_progress_bars()
