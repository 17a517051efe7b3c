"""TrOPD without teacher prefixes: one of its three ways to handle outliers."""

from dataclasses import dataclass

from baselines.tropd import TrOPD


@dataclass(frozen=True)
class FKLOutlier(TrOPD):
    """FKL Outlier: TrOPD's on-policy part alone, without teacher prefixes.

    Row "FKL Outlier" of Table 1 of TrOPD (arXiv 2606.01249), J^On.

        J^On_x = M·r·log π_S(x) − (1−M)·Σ_{v∈TopK(π_T)} π_T(v)·log(π_T(v)/π_S(v))
        M ~ Bernoulli(min(π_T(x)/π_S(x), 1)),   r = sg[log π_T(x) − log π_S(x)]

    `beta` has no effect while there is no prefix.

    Other code: as of baselines/tropd.py.

    Readings: as in baselines/tropd.py.

    Deviations: as in baselines/tropd.py.
    """

    prefix_schedule: str = "none"  # no guidance; this is all that differs from TrOPD


METHOD = FKLOutlier
