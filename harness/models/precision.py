"""How float32 matrices are multiplied in this process."""

from __future__ import annotations

import torch


def use_precision(dtype: str) -> None:
    """Sets the precision of float32 products for weights of a type (a name in torch), for the whole process.

    bfloat16: TF32 on a GPU, in which a product of two bfloat16 numbers is exact: float32 sums at the speed of the
    tensor cores. Any other: full float32. Always set, never left as it is: an earlier run of the process had a type of
    its own.
    """
    torch.set_float32_matmul_precision("high" if dtype == "bfloat16" else "highest")
