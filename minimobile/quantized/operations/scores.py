"""What operations have in common whose bytes are shares of one."""

from __future__ import annotations

import numpy as np

from minimobile.quantized.network import Tensor
from minimobile.quantized.operations.operation import QuantizedOperation
from minimobile.quantized.operations.reading import Reading


class Scores(QuantizedOperation):
    """An operation whose result's bytes are 256ths, from the smallest byte."""

    result = "probabilities"

    def check_share(self, reading: Reading, out: Tensor) -> Tensor:
        """Check the result's scale and zero point; return the input."""
        (x,) = reading.inputs(1)
        reading.check_bytes(x, out)
        lowest = int(np.iinfo(out.dtype).min)
        is_right = float(out.scale) == 1 / 256 and out.zero == lowest
        reading.demand(
            is_right, f"a result with the scale 1/256 and the zero point {lowest}", f"{out.scale}, {out.zero}"
        )
        return x
