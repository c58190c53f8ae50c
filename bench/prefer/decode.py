"""Computes the next tokens' logits of many responses to several prompts, one token of each in a step.

Linear layers run over the responses of all prompts together, always over SLOTS rows, and attention runs over the
responses of one prompt at a time. So no product has a shape that depends on the other prompts, and a prompt's logits
are the same beside any others, in bfloat16 too. Experts are an exception: how many rows an expert gets depends on all.

A prompt is read once for all of its responses, which share its keys and values.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from bench.faults import first_line
from bench.prefer import cache
from bench.prefer.cache import BLOCK, Group, Keys, Prompt
from bench.scoring.forward import NotSupportedError, layers
from bench.scoring.forward.attention import check_softmax, trie_attention
from bench.scoring.forward.context import Softmax, StepContext, context
from bench.scoring.forward.device import moved, out_of_memory
from bench.scoring.forward.onednn import padded
from bench.scoring.forward.ops import choose
from bench.scoring.forward.preparing import length_bound, own_attention
from bench.scoring.forward.tiles import by_tiles, flash
from bench.scoring.forward.trie import pack

SLOTS = 64
"""Rows of every step. Rows without a response are computed too: a product of fewer rows rounds in another way."""

ATTENTION = "drsow_responses"
"""transformers' name of the attention below."""

CLOSE_NATS = {torch.float32: (1e-3, 1e-3), torch.bfloat16: (math.inf, 0.5)}
"""Largest accepted difference to the model's own forward pass: of a token, and on average over tokens."""


@dataclass
class Together:
    """What the layers need to know about a step of several groups."""

    groups: Sequence[Group]

    @functools.cached_property
    def lengths(self) -> Tensor:
        """What `cache.attend` needs to know."""
        return torch.tensor([(group.n_rows, group.prompt.n, group.n_own) for group in self.groups])

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, softmax: Softmax) -> Tensor:
        """Attention of one layer, (1, SLOTS, heads, width), 0 behind the last response.

        Args:
            layer: Its number.
            query: (1, heads, SLOTS, head_dim): one token of each response.
            key: (1, kv_heads, SLOTS, head_dim).
            value: (1, kv_heads, SLOTS, width).
            softmax: The layer's.
        """
        scale = query.shape[3] ** -0.5 if softmax.scale is None else softmax.scale
        if cache.fits(query, value, softmax):
            new, window = (query[0], key[0], value[0]), softmax.window
            return cache.attend(layer, *new, self.groups, self.lengths, scale=scale, window=window)[None]
        # The heads that share keys are rows of one product, (SLOTS, kv_heads, heads of one, head_dim).
        queries = query[0].unflatten(0, (key.shape[1], -1)).permute(2, 0, 1, 3).contiguous()
        out = queries.new_zeros(*queries.shape[:3], value.shape[3])
        fast = query.device.type == "cpu" and softmax.cap is None and key.shape[3] == value.shape[3]
        low = 0
        for group in self.groups:
            rows = slice(low, low + group.n_rows)
            kept = _added(group, layer, key[0, :, rows].transpose(0, 1), value[0, :, rows].transpose(0, 1))
            seen = _seen(group, layer, kept, softmax.window)
            out[rows] = _flash(queries[rows], *seen, scale) if fast else _plain(queries[rows], *seen, scale, softmax)
            low = rows.stop
        return out.flatten(1, 2)[None]


def _added(group: Group, layer: int, key: Tensor, value: Tensor) -> Keys:
    """The keys and values of a group's responses with those of a new token, which are (n_rows, kv_heads, width)."""
    kept = group.own.get(layer)
    if kept is None or kept[0].shape[2] == group.n_own:
        new = [x.new_empty(*x.shape[:2], BLOCK, x.shape[2]) for x in (key, value)]
        kept = (new[0], new[1]) if kept is None else (torch.cat([kept[0], new[0]], 2), torch.cat([kept[1], new[1]], 2))
        group.own[layer] = kept
    kept[0][:, :, group.n_own], kept[1][:, :, group.n_own] = key, value
    return kept


def _seen(group: Group, layer: int, kept: Keys, window: int | None) -> tuple[Keys, Keys]:
    """The keys and values of the prompt and of the responses that the newest tokens see."""
    n = group.n_own + 1
    first = 0 if window is None else max(0, group.prompt.n + n - window)
    shared, own = slice(first, None), slice(max(0, first - group.prompt.n), n)
    key, value = group.prompt.layers[layer]
    return (key[:, shared], value[:, shared]), (kept[0][:, :, own], kept[1][:, :, own])


def _flash(query: Tensor, shared: Keys, own: Keys, scale: float) -> Tensor:
    """Attention of a group's newest tokens on a CPU; arguments as in `_plain`.

    The two softmaxes are joined by the logarithms of their sums: the weight of the second is the sigmoid of the
    difference.
    """
    out, sums = flash(query, *own, scale=scale)
    if not shared[0].shape[1]:
        return out
    together = query.transpose(0, 1).flatten(1, 2)[None]
    result, above = flash(together, shared[0][None], shared[1][None], scale=scale)
    weight = (sums - above.view(query.shape[1], len(query), -1).transpose(0, 1)).sigmoid_()[..., None]
    return torch.lerp(result.view(query.shape[1], *query[:, 0].shape).transpose(0, 1), out, weight.to(out.dtype))


def _plain(query: Tensor, shared: Keys, own: Keys, scale: float, softmax: Softmax) -> Tensor:
    """Attention of a group's newest tokens, (n_rows, kv_heads, heads of one, width).

    Args:
        query: (n_rows, kv_heads, heads of one, head_dim).
        shared: The prompt's keys and values, (kv_heads, p, width) each.
        own: The responses', (n_rows, kv_heads, k, width) each.
        scale: Factor of the scores.
        softmax: The layer's.
    """
    p = shared[0].shape[1]
    scores = torch.cat([query @ shared[0].mT, query @ own[0].mT], -1).float() * scale
    if softmax.cap is not None:
        scores = scores.div_(softmax.cap).tanh_().mul_(softmax.cap)
    weights = torch.softmax(scores, -1).to(query.dtype)
    return weights[..., :p] @ shared[1] + weights[..., p:] @ own[1]


def responses_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    step: StepContext | Together,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer. The model's own code calls it; arguments and errors as in `trie_attention`."""
    if isinstance(step, StepContext):
        return trie_attention(module, query, key, value, attention_mask, step=step, **kwargs)
    check_softmax(kwargs)
    softmax = Softmax(kwargs.get("scaling"), kwargs.get("sliding_window"), kwargs.get("softcap"))
    return step.attend(module.layer_idx, query, key, value, softmax), None


AttentionInterface.register(ATTENTION, responses_attention)


@contextlib.contextmanager
def decoding(model: PreTrainedModel) -> Iterator[None]:
    """Gives a model the attention that `read` and `advance` need, for a while."""
    model.set_attn_implementation(ATTENTION)
    try:
        yield
    finally:
        model.set_attn_implementation(own_attention(model))


@torch.inference_mode()
def read(model: PreTrainedModel, ids: Sequence[int]) -> Prompt:
    """Reads a prompt."""
    row = np.array([*ids, 0], dtype=np.int64)
    (step,) = pack([row], [len(ids)], budget=len(row)).steps
    attend = functools.partial(by_tiles, least=math.inf)
    ctx = context(step, trunk=None, device=model.device, attend=attend)
    ctx = dataclasses.replace(ctx, kept={})
    output = model(
        input_ids=padded(moved(step.ids, model.device))[None],
        position_ids=padded(ctx.positions)[None],
        use_cache=False,
        logits_to_keep=torch.tensor([len(ids) - 1], device=model.device),
        step=ctx,
    )
    assert ctx.kept is not None
    layers = {layer: (key[0], value[0]) for layer, (key, value) in ctx.kept.items()}
    return Prompt(len(ids), layers, output.logits[0])


@torch.inference_mode()
def advance(model: PreTrainedModel, groups: Sequence[Group], tokens: Sequence[int]) -> Tensor:
    """Adds a token to every response.

    Args:
        model: The model.
        groups: Of at most SLOTS responses.
        tokens: A token of each response, in the groups' order.

    Returns:
        Logits of each response's next token, (responses, words).
    """
    positions = [group.prompt.n + group.n_own for group in groups for _ in range(group.n_rows)]
    empty = [0] * (SLOTS - len(tokens))
    ids, places = (torch.tensor([[*row, *empty]], device=model.device) for row in (tokens, positions))
    step = Together(groups)
    logits = model(input_ids=ids, position_ids=places, use_cache=False, step=step).logits[0]
    for group in groups:
        group.n_own += 1
    return logits[: len(tokens)]


@torch.inference_mode()
def fit(model: PreTrainedModel) -> str:
    """Gives a model the layers of the engine on its device, in place, if it can be sampled from in batches.

    Returns:
        "", or why it cannot be, because its logits would not be those of its own forward pass. It is as before then.
    """
    if kind := length_bound(model):
        return f"its rotary positions ({kind}) depend on the longest text in a step"
    ids = np.arange(24) * 37 % model.config.get_text_config().vocab_size
    head, tails = ids[:16].tolist(), [ids[16:20].tolist(), ids[20:24].tolist()]
    texts = torch.tensor([head + tail for tail in tails], device=model.device)
    own = torch.stack([model(input_ids=text[None], use_cache=False).logits[0, 15:] for text in texts])
    ops = choose(model.device, model.dtype)
    layers.fit(model.base_model, linear=ops.linear, gated=ops.gated, norm=ops.norm, rotary=ops.rotary)
    reason = _difference(model, own, head, tails)
    if reason:
        layers.unfit(model.base_model)
    return reason


def _difference(model: PreTrainedModel, own: Tensor, head: Sequence[int], tails: Sequence[Sequence[int]]) -> str:
    """How the logits after a head and its tails differ from the model's own, (tails, tokens, words); "" if hardly."""
    try:
        with decoding(model):
            prompt = read(model, head)
            group, found = Group(prompt, len(tails)), [prompt.logits.expand(len(tails), -1)]
            found += [advance(model, [group], list(tokens)) for tokens in zip(*tails, strict=True)]
    except (NotSupportedError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        if out_of_memory(error):
            raise
        return first_line(error)
    logps = [each.float().log_softmax(-1) for each in (own, torch.stack(found, 1))]
    apart = (logps[0] - logps[1]).abs().nan_to_num(0, posinf=0)
    worst, mean = CLOSE_NATS.get(model.dtype, CLOSE_NATS[torch.bfloat16])
    if apart.max() < worst and apart.mean() < mean:
        return ""
    return f"its own forward pass differs by {apart.mean():.3g} nats"
