"""Compiles a model's decoder layers for a GPU.

A layer's norms, rotary positions, activations and residual sums each read and write every token's state. Compiled, what
stands side by side reads and writes it once. Matrix products are still the library's. Attention over the trie has
a separate kernel, FlexAttention's.
"""

import functools
import types
from collections.abc import Callable, Iterator

import torch
from torch import nn

from bench.scoring.forward import ATTENTION
from bench.scoring.forward.attention import trie_attention
from bench.scoring.forward.compiling import compiled

NAME = "The model's layer"
"""Its name in error messages."""


def fuse(model: nn.Module) -> None:
    """Compiles the decoder layers of a model's body, in place; `unfuse` undoes it."""
    # Imported here: choosing operations needs no transformers.
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, torch.compiler.disable(trie_attention))
    for layer in decoder_layers(model):
        # A layer with a forward pass in its instance got it from accelerate, which moves the tensors of a spread model.
        if "forward" not in vars(layer):
            layer.forward = types.MethodType(_compiled(layer.__class__), layer)


def unfuse(model: nn.Module) -> None:
    """Gives the decoder layers their own forward passes back."""
    for layer in decoder_layers(model):
        own = vars(layer).get("forward")
        if isinstance(own, types.MethodType) and own.__func__ is _compiled(layer.__class__):
            del layer.forward


def decoder_layers(model: nn.Module) -> Iterator[nn.Module]:
    """The layers of a decoder: the modules with attention in a list of modules."""
    for stack in model.modules():
        if isinstance(stack, nn.ModuleList):
            yield from (layer for layer in stack if any("att" in name for name, _ in layer.named_children()))


@functools.cache
def _compiled(kind: type[nn.Module]) -> Callable[..., object]:
    return compiled(kind.forward, NAME)
