"""Counts the steps of a tuning, and the preferences that they read."""

import math


def n_steps(n_rows: int, *, n_epochs: float, batch: int) -> int:
    """Steps of the optimiser, as Trainer counts them: an epoch may end on a short step, a tuning on no part of one."""
    return math.ceil(n_epochs * math.ceil(n_rows / batch))


def rows_until(step: int, n_rows: int, *, batch: int) -> int:
    """Preferences that the first steps read, `n_rows` in an epoch."""
    n_epochs, more = divmod(step, math.ceil(n_rows / batch))
    return n_epochs * n_rows + more * batch
