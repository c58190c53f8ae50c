"""Text in, log-probabilities out. What of it can change a number is named here, for the keys of score sets."""

SPAN = "joint-2"
"""Version of the rule that says which tokens are the response, and of the date that chat templates are told."""

PLAIN = "plain-1"
"""Version of the format for models without a chat template."""
