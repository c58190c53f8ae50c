"""Computes one forward pass: packed token sequences and a model in, log-probabilities out. Knows no registry or store.

This file imports nothing, so code that only reads the store can name the rule of attention without torch.
"""

ATTENTION = "drsow_trie"
"""The rule of attention that the engine gives every model: a token sees its own path through the trie. `ops.Ops.name`
says which code computes it."""


class NotSupportedError(Exception):
    """The engine cannot run a model. The message says why."""
