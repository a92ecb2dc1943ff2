"""The functions of this package that Python calls, and what they take."""

from __future__ import annotations

import numpy as np

from minimobile_kernels import detection_rules, step
from minimobile_kernels.abi import THREAD, Array, Number
from minimobile_kernels.native import Entry
from minimobile_kernels.quantized import step as quantized_step

_INT64, _INT32, _UINT64, _UINT16, _UINT8 = (np.dtype(name) for name in ("int64", "int32", "uint64", "uint16", "uint8"))
_FLOAT32, _FLOAT64 = np.dtype("float32"), np.dtype("float64")
_FLOATS, _BYTES, _TABLE = Array(_FLOAT32), Array(_UINT8), Array(_FLOAT32, 2)
_NEW_FLOATS, _NEW_BYTES, _NEW_TABLE = (kind._replace(is_written=True) for kind in (_FLOATS, _BYTES, _TABLE))
_COUNTS = Array(_INT64, is_written=True)

run = Entry(
    "minimobile_kernels.machine", "run",
    Array(step.STEP), _FLOATS, _FLOATS, _NEW_FLOATS, Array(_INT64), _COUNTS, _COUNTS, Number(), THREAD,
)  # fmt: skip
run_quantized = Entry(
    "minimobile_kernels.quantized.machine", "run",
    Array(quantized_step.STEP), _BYTES, _BYTES, _NEW_BYTES, _NEW_BYTES, _COUNTS, _COUNTS, Number(), THREAD,
)  # fmt: skip
serve = Entry("minimobile_kernels.crew", "serve", _COUNTS, Number(), THREAD)
_CHOICE = (_TABLE, Array(detection_rules.RULES), _NEW_TABLE, _COUNTS, _NEW_TABLE, _COUNTS)
detect = Entry("minimobile_kernels.detection", "detect", _TABLE, _FLOATS, *_CHOICE)
detect_bytes = Entry("minimobile_kernels.detection", "detect_bytes", Array(_UINT8, 2), _BYTES, _TABLE, *_CHOICE)
sigmoid_scores = Entry("minimobile_kernels.detection", "sigmoid_scores", _FLOATS, _COUNTS, _NEW_FLOATS)
softmax = Entry(
    "minimobile_kernels.exponentials", "softmax", Array(_FLOAT64), _COUNTS, Array(_FLOAT64, is_written=True)
)
rank = Entry("minimobile_kernels.exponentials", "rank", Array(_FLOAT64), _COUNTS)
count_values = Entry(
    "minimobile_kernels.statistics", "count_values",
    _TABLE, Array(_FLOAT64, is_written=True), _COUNTS, Number(_FLOAT64),
)  # fmt: skip
find_classes = Entry(
    "minimobile_kernels.class_map", "find_classes",
    Array(_FLOAT32, 3), Array(_INT64, 2), Array(_FLOAT64), Array(_UINT64, 2), Array(_FLOAT64),
    Array(_FLOAT64, 3, is_written=True), _NEW_FLOATS, Array(_UINT16, 2, is_written=True),
)  # fmt: skip
_TAPS = (Array(_INT64), Array(_INT32, 2))
_PICTURE = Array(_UINT8, 2)
_NEW_PICTURE = _PICTURE._replace(is_written=True)
resample = Entry(
    "minimobile_kernels.resample", "resample",
    _PICTURE, *_TAPS, *_TAPS, _NEW_PICTURE, Array(_INT32, 2, is_written=True), _NEW_PICTURE,
    Number(), Number(), Number(),
)  # fmt: skip
look_up = Entry("minimobile_kernels.resample", "look_up", _PICTURE, _TABLE, _NEW_TABLE)
look_up_pixels = Entry("minimobile_kernels.resample", "look_up_pixels", _PICTURE, _PICTURE, _NEW_PICTURE)
