"""From the best pair to preferences: which domain a prompt is of, and what both models are told of it."""
