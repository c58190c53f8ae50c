"""One forward pass: packed token sequences and a model -> log-probabilities. Knows no registry, no store, no file.

Imports nothing: what only reads the store names the rule of attention without torch.
"""

ATTENTION = "drsow_trie"
"""The rule of attention that the engine gives every model: a token sees its own path through the trie. What computes it
is another matter: `ops.Ops.name` tells."""


class NotSupportedError(Exception):
    """A model is other than what the engine can run; says in which way."""
