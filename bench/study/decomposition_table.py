"""Makes the printable table of the decomposition: the verdict, and each estimate with its interval and p."""

import numpy as np
import pandas as pd

from bench.study.correlate import MIN_MODELS, TOO_FEW
from bench.study.tables import DASH, Table, count_texts, p_texts
from bench.study.verdict import TITLES, verdict


def decomposition_table(decomposition: pd.DataFrame, *, provenance: str) -> Table:
    """What counts for accuracy: slopes of the two models' performances, checks, and the verdict in the note.

    Args:
        decomposition: DECOMPOSITION with `reward` and `performance`, one of each.
        provenance: How the numbers were made, for the note.
    """
    frame = decomposition.reset_index(drop=True)
    cells = pd.DataFrame({"Estimator": frame["estimator"].map(TITLES)})
    cells["Estimate"] = [DASH if np.isnan(value) else f"{value:.2f}" for value in frame["estimate"].astype(float)]
    cells["95% interval"] = [
        TOO_FEW if n < MIN_MODELS and not np.isnan(value) else DASH if np.isnan(low) else f"[{low:.2f}, {high:.2f}]"
        for value, low, high, n in frame[["estimate", "low", "high", "n_models"]].astype(float).to_numpy()
    ]
    cells["p"] = p_texts(frame["p_value"])
    holm = p_texts(frame["p_holm"])
    cells["p by Holm"] = ["declared" if primary else text for primary, text in zip(frame["primary"], holm, strict=True)]
    cells = cells.assign(**{name.title(): count_texts(frame[f"n_{name}"]) for name in ("pairs", "models", "prompts")})
    of = "" if frame.empty else f"Reward: {frame['reward'].iloc[0]}. Performance: {frame['performance'].iloc[0]}. "
    note = (
        f"{verdict(frame).words} Slopes are inside families, in points of accuracy per unit of performance. Intervals "
        "resample models and prompts. p: QAP, what the null allows is regressed out first; mixed model: Wald. Holm "
        f"(in Shaffer's form) adjusts the slopes and their sum, and Holm the three checks. {of}{provenance}"
    )
    return Table("Is it the gap?", frame, cells, note)
