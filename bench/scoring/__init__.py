"""Computes log-probabilities of responses. Versions of the rules that can change a number are here, for the keys."""

SPAN = "joint-2"
"""Version of the rule that decides which tokens are the response, and of the date that chat templates get."""

PLAIN = "plain-1"
"""Version of the plain format, for models without a chat template."""
