"""From a checkpoint of any known format to our native file or transformers' directory, with a report of all arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minimobile.arguments import check_choice
from minimobile.errors import FormatError, InputError
from minimobile.formats import hdf5, huggingface
from minimobile.formats.checkpoint import Checkpoint
from minimobile.formats.onnx import write as onnx_file
from minimobile.formats.ranges import name_range
from minimobile.formats.safetensors_file import is_counter
from minimobile.formats.tflite import tflite
from minimobile.formats.tflite.tflite_detection import settle_rules
from minimobile.formats.validation import WRITTEN_DTYPES
from minimobile.models.conversion_report import ConversionReport
from minimobile.models.layouts import DIRECTORY, FILES, NATIVE, ONNX, TFLITE, choose_layout
from minimobile.models.sources import examine
from minimobile.models.weights import fit_weights, idle_weights
from minimobile.networks.build_graph import build_graph
from minimobile.networks.config import MobileNetV1Config
from minimobile.networks.ssd import ANCHORS
from minimobile.operations.passes import keep_needed
from minimobile.storage.directories import check_directory
from minimobile.storage.files import check_apart, check_destination, user_path
from minimobile.storage.hub import WEIGHTS

KEEP_INTEGERS: Mapping[str, Callable[..., None]] = {TFLITE: tflite.write, ONNX: onnx_file.write}
"""Files that hold a network of floats or integers and no ranges of training, and what writes them."""
_NOT_NEEDED = "nothing that an output depends on, which a file of operators does not hold"
_NO_RANGES = "a range of training for quantisation, which what was written cannot hold"
PROCESSOR_SETTINGS = {
    "do_convert_rgb", "do_resize", "size", "default_to_square", "resample", "do_center_crop", "crop_size", "do_rescale",
    "rescale_factor", "do_normalize", "image_mean", "image_std", "do_pad", "pad_size", "do_reduce_labels",
    "data_format", "input_data_format", "return_tensors", "device", "disable_grouping", "image_seq_length",
    "image_processor_type", "feature_extractor_type", "processor_class", "use_fast", "backend",
}  # fmt: skip
"""What transformers' image processors of MobileNets can be told (5.23)."""


def convert(
    source: str | Path, destination: str | Path, *, dtype: str = "float32", overwrite: bool = False
) -> ConversionReport:
    """Write a checkpoint as our native file (NAME.h5), as NAME.tflite, as NAME.onnx or as transformers' directory.

    `source` is what `load` takes. Arrays keep their bits, but for batch norm, which a TFLite file has folded into them;
    integers stay integers in a TFLite or ONNX file. `dtype="float16"` halves a file of floats. The destination
    appears whole or not at all. Raises FormatError for a source that is no network of ours or a place that cannot be
    written, InputError for a destination that is taken (unless `overwrite`), that is the source itself, or that
    stands in no existing directory, and for a `dtype` that no file has.
    """
    check_choice(dtype, "dtype", WRITTEN_DTYPES)
    path = user_path(destination, "destination")
    layout = choose_layout(path)
    if layout == DIRECTORY and dtype != "float32":
        raise InputError(
            f"{path}: expected dtype float32, in which transformers computes, got {dtype!r}; a native file "
            "(NAME.h5) takes float16, and so do NAME.tflite and NAME.onnx"
        )
    _check_place(path, layout, overwrite)
    check_apart(user_path(source, "source"), path, path / WEIGHTS[0])
    description, checkpoint = examine(source)
    if checkpoint is None:
        raise FormatError(str(description.problem))
    has_integers = layout in KEEP_INTEGERS and checkpoint.quantized is not None
    if has_integers and dtype != "float32":
        raise InputError(
            f"{path}: expected dtype float32 for a source of integers, which stay as they are, got {dtype!r}"
        )
    fitted, missing, ignored = _fit(checkpoint, str(source))
    ranges = _name_ranges(checkpoint)
    kept = fitted.weights.keys() | (ranges if layout == NATIVE else set())
    if layout in KEEP_INTEGERS and not has_integers:
        needed = _find_needed(fitted)
        ignored |= {name: _NOT_NEEDED for name, canonical in _names(checkpoint).items() if canonical in kept - needed}
        kept &= needed
    idle = missing if layout == DIRECTORY else {}
    complete = dataclasses.replace(fitted, weights={**fitted.weights, **idle_weights(idle)})
    complete, rules_notes = settle_rules(complete) if layout == TFLITE else (complete, ())
    if layout == NATIVE:
        hdf5.write(path, dataclasses.replace(complete, quantized=None), dtype, overwrite=overwrite)
        written = tuple(complete.weights)
    elif layout in KEEP_INTEGERS:
        KEEP_INTEGERS[layout](path, dataclasses.replace(complete, ranges={}), dtype, overwrite=overwrite)
        written = tuple(sorted(kept))
    else:
        huggingface.write(path, dataclasses.replace(complete, ranges={}), overwrite=overwrite)
        written = tuple(huggingface.name_weights(complete))
    return ConversionReport(
        source=str(source),
        destination=str(path),
        format=description.format,
        dialect=checkpoint.dialect,
        producer=description.producer,
        architecture=checkpoint.architecture,
        layout=layout,
        dtype=dtype,
        mapped={name: canonical for name, canonical in _names(checkpoint).items() if canonical in kept},
        ignored=ignored | {name: _NO_RANGES for name, range_ in checkpoint.mapped.items() if range_ in ranges - kept},
        missing=tuple(missing),
        idle=tuple(idle),
        rounded=_find_rounded(complete, dtype) if layout in FILES else (),
        written=written,
        notes=() if has_integers else (*_explain_rounding(checkpoint), *_EXPLANATIONS[layout](complete), *rules_notes),
        has_integers=has_integers,
    )


def _check_place(path: Path, layout: str, overwrite: bool) -> None:
    if layout in FILES:
        check_destination(path, overwrite=overwrite)
    elif not path.is_dir():
        check_destination(path, overwrite=True)
        if path.exists():
            raise InputError(f"{path}: expected a directory, found a file of that name")
    else:
        check_directory(path, overwrite=overwrite)


def _names(checkpoint: Checkpoint) -> Mapping[str, str]:
    """Return {name in the source: canonical name}; formats that use canonical names need not list them."""
    return checkpoint.mapped or {name: name for name in checkpoint.weights}


def _find_needed(checkpoint: Checkpoint) -> set[str]:
    """Return the weights that the outputs depend on: what a file of operators holds."""
    graph = build_graph(checkpoint.config, checkpoint.architecture)
    return set(keep_needed(graph, graph.outputs).shapes) | (checkpoint.weights.keys() & {ANCHORS})


def _name_ranges(checkpoint: Checkpoint) -> set[str]:
    """Return what `mapped` calls the ranges of training for quantisation."""
    return {name_range(key) for key in checkpoint.ranges}


def _fit(checkpoint: Checkpoint, where: str) -> tuple[Checkpoint, dict[str, tuple[int, ...]], dict[str, str]]:
    """Return the checkpoint with what its network needs, the shapes of what is missing, and what was ignored, and why.

    Raises FormatError where the weights are not those of the network that the config describes.
    """
    graph = build_graph(checkpoint.config, checkpoint.architecture)
    weights, fitted = fit_weights(checkpoint.weights, graph, where)
    for name, values in checkpoint.weights.items():
        if is_counter(name) and name.rpartition(".")[0] + ".running_mean" in weights:
            weights[name] = values
    ignored = dict(checkpoint.ignored)
    ranges = _name_ranges(checkpoint)
    for name, canonical in _names(checkpoint).items():
        if canonical not in weights and canonical not in ranges:
            reason = "part of a layer that no output needs, without the rest of it"
            ignored[name] = reason if canonical in graph.shapes else f"nothing that a {checkpoint.architecture} has"
    missing = {name: shape for name, shape in graph.shapes.items() if name not in fitted.shapes}
    config: Any = checkpoint.config
    config = config.replace(architectures=(checkpoint.architecture,))
    return dataclasses.replace(checkpoint, config=config, weights=weights), missing, ignored


def _find_rounded(checkpoint: Checkpoint, dtype: str) -> tuple[str, ...]:
    return tuple(
        name
        for name, values in checkpoint.weights.items()
        if not is_counter(name) and not np.array_equal(values.astype(dtype), values, equal_nan=True)
    )


def _explain_rounding(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Say that a quantised network becomes one of floats."""
    if not checkpoint.is_quantized:
        return ()
    return ("the source computes in integers; what was written has its weights as floats, which give other numbers",)


def _explain_losses(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Say what transformers leaves aside of what config.json and preprocessor_config.json tell it."""
    config = checkpoint.config
    notes = []
    if checkpoint.ranges:
        notes.append(
            "transformers does not round as in training for quantisation: the ranges of weights and values are left "
            "out, which gives other numbers"
        )
    if config.pool_size is not None:
        notes.append(
            f"transformers ignores pool_size {config.pool_size}: it averages the whole feature map, which differs "
            f"where that is larger than {config.pool_size} x {config.pool_size}"
        )
    if isinstance(config, MobileNetV1Config) and config.output_stride != 32:
        notes.append(
            f"transformers ignores output_stride {config.output_stride} of a MobileNet V1: it computes at output "
            "stride 32, which gives other numbers"
        )
    if config.bottom_right_padding is not None:
        notes.append(
            f"transformers ignores bottom_right_padding {config.bottom_right_padding!r}: it pads by TensorFlow's SAME, "
            "which differs for pictures whose height or width is no multiple of 32"
        )
    settings = checkpoint.processor or {}
    unknown = sorted({name for name, value in settings.items() if value is not None} - PROCESSOR_SETTINGS)
    if unknown:
        notes.append(f"transformers' image processor ignores {', '.join(unknown)}: it prepares pictures otherwise")
    return tuple(notes)


def _explain_folding(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Say what a TFLite or ONNX file of floats leaves out, and whether folding batch norm changes its numbers."""
    if not checkpoint.config.folds_batch_norm:
        return ("batch norm, which scales the sums of the source, is folded into the weights: other last bits",)
    if not checkpoint.ranges:
        return ()
    return (
        "a file of floats does not round as in training for quantisation, which gives other numbers; "
        "load(SRC, quantized=True).save(DST) writes the integers that the network was trained for",
    )


_EXPLANATIONS: Mapping[str, Callable[[Checkpoint], tuple[str, ...]]] = {
    NATIVE: lambda checkpoint: (),
    TFLITE: _explain_folding,
    ONNX: _explain_folding,
    DIRECTORY: _explain_losses,
}
