"""Which of the methods to use, as data; the defaults are chosen by measurement (`tools/quantization.py`)."""

from __future__ import annotations

from dataclasses import dataclass

from minimobile.arguments import check_choice, read_flag
from minimobile.calibration.ranges import RANGES
from minimobile.calibration.rounding import Scheme
from minimobile.errors import InputError
from minimobile.quantized.ends import TYPES

BATCH_NORM = "batch_norm"
"""The ranges that need no picture."""


@dataclass(frozen=True)
class Method:
    """How a network is quantised.

    `per_channel`: int8 with a scale per output channel, else uint8 with one scale per tensor. `ranges` of maps: a name
    of `RANGES`, or "batch_norm"; None: the best there is, "squared_error" with pictures. `weights` and `rounding` are
    those of `Scheme`. `equalize`: make channels alike first; None: where there is one scale for all and it helps.
    `input_type` is that of what goes in and comes out. Raises InputError for what is none of these.
    """

    per_channel: bool = True
    ranges: str | None = None
    weights: str = "min_max"
    rounding: str = "balanced"
    equalize: bool | None = None
    correct_bias: bool = True
    input_type: str = "uint8"

    def __post_init__(self) -> None:
        read_flag(self.per_channel, "per_channel")
        if self.ranges is not None:
            check_choice(self.ranges, "ranges", (BATCH_NORM, *RANGES))
        if self.equalize is not None:
            read_flag(self.equalize, "equalize")
        read_flag(self.correct_bias, "correct_bias")
        check_choice(self.input_type, "input_type", TYPES)
        self.scheme()

    def scheme(self) -> Scheme:
        """Return how weights become bytes."""
        return Scheme(self.per_channel, self.weights, self.rounding)

    @property
    def is_equalized(self) -> bool:
        """Whether channels are made alike first."""
        return not self.per_channel if self.equalize is None else self.equalize

    def choose_ranges(self, has_pictures: bool) -> str:
        """Return how ranges are chosen. Raises InputError for one that needs pictures, without any."""
        if self.ranges is None:
            return "squared_error" if has_pictures else BATCH_NORM
        if self.ranges != BATCH_NORM and not has_pictures:
            raise InputError(f"ranges: expected {BATCH_NORM!r} without pictures, got {self.ranges!r}; give pictures")
        return self.ranges


DEFAULT_METHOD = Method()
