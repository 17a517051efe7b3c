"""OPD with the reward floored: one of TrOPD's three ways to handle outliers."""

from dataclasses import dataclass

from baselines.reopold import REOPOLD


@dataclass(frozen=True)
class ClipOutlier(REOPOLD):
    """Clip Outlier: OPD with the reward floored, which is REOPOLD's clip form under another name.

    Row "Clip Outlier" of Table 1 of TrOPD (arXiv 2606.01249), equal to its row "REOPOLD" in every digit.

        A_t = max(sg[log π_T(x_t) − log π_S(x_t)], floor)

    Kept as a file of its own so that the paper's table can be run row by row.

    Other code: as of baselines/tropd.py.

    Readings: τ (here `floor`) is not stated; it is REOPOLD's default.

    Deviations: none known.
    """


METHOD = ClipOutlier
