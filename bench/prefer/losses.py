"""Computes preference losses from log-probabilities: SimPO, which the paper uses, and DPO, which REAL uses."""

from torch import Tensor
from torch.nn.functional import logsigmoid

BETA = {"simpo": 10.0, "dpo": 0.1}
"""Each loss's own beta, as in Dr. SoW and REAL, for a tuning that names none. SFT reads none."""

GAMMA_RATIO = 0.3
"""SimPO's target margin divided by beta, for a tuning that names none."""


def simpo(chosen: Tensor, rejected: Tensor, *, beta: float, gamma_ratio: float) -> Tensor:
    """SimPO's loss of each preference (arXiv 2405.14734, eq. 6): -log sigmoid(beta (chosen - rejected) - gamma).

    Args:
        chosen: Mean log-probability per token of the chosen response, (batch,), nats.
        rejected: The same for the rejected response.
        beta: Scale of the implicit reward.
        gamma_ratio: Target margin divided by beta: gamma = gamma_ratio x beta.

    Returns:
        (batch,).
    """
    return -logsigmoid(beta * (chosen - rejected) - gamma_ratio * beta)


def dpo(chosen: Tensor, rejected: Tensor, chosen_start: Tensor, rejected_start: Tensor, *, beta: float) -> Tensor:
    """DPO's loss of each preference (arXiv 2305.18290, eq. 7): -log sigmoid(beta (log-ratio - log-ratio at the start)).

    Args:
        chosen: Summed log-probability of the chosen response under the policy, (batch,), nats.
        rejected: The same for the rejected response.
        chosen_start: Summed log-probability of the chosen response under the policy before tuning, (batch,), nats.
        rejected_start: The same for the rejected response.
        beta: Strength of the pull towards the policy before tuning.

    Returns:
        (batch,).
    """
    return -logsigmoid(beta * ((chosen - rejected) - (chosen_start - rejected_start)))
