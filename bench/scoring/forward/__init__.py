"""One forward pass: packed token sequences and a model -> log-probabilities. Knows no registry, no store, no file.

Imports nothing: what only reads the store names an attention without torch.
"""

ATTENTION = "drsow_tiles"
"""The attention that the engine gives every model."""
