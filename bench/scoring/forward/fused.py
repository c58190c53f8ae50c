"""A model's decoder layers as torch compiles them for a GPU.

A layer's norms, rotary positions, activations and residual sums each read and write every token's state; compiled, what
stands side by side reads and writes it once. Matrix products stay the library's own, and attention over the trie stays
outside: it is FlexAttention's kernel.
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
"""What an error calls it where it does not compile."""


def fuse(model: nn.Module) -> None:
    """Compiles the decoder layers of a model's body, in place; `unfuse` undoes it."""
    # Imported here: choosing operations needs no transformers.
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, torch.compiler.disable(trie_attention))
    for layer in decoder_layers(model):
        # A forward pass that stands in the layer itself is one of accelerate's, which moves a spread model's tensors.
        if "forward" not in vars(layer):
            layer.forward = types.MethodType(_compiled(type(layer)), layer)


def unfuse(model: nn.Module) -> None:
    """Gives the decoder layers their own forward passes back."""
    for layer in decoder_layers(model):
        own = vars(layer).get("forward")
        if isinstance(own, types.MethodType) and own.__func__ is _compiled(type(layer)):
            del layer.forward


def decoder_layers(model: nn.Module) -> Iterator[nn.Module]:
    """The layers of a decoder, which stand in a list, each with its attention."""
    for stack in model.modules():
        if isinstance(stack, nn.ModuleList):
            yield from (layer for layer in stack if any("att" in name for name, _ in layer.named_children()))


@functools.cache
def _compiled(kind: type[nn.Module]) -> Callable[..., object]:
    return compiled(kind.forward, NAME)
