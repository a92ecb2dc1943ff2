"""TFLite (LiteRT) files with a MobileNet V1, V2 or DeepLab, float or quantised: operators -> layers -> checkpoint."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from minimobile.errors import FormatError
from minimobile.formats import stored_zip
from minimobile.formats.checkpoint import Checkpoint, Obstacle
from minimobile.formats.description import Description, Entry
from minimobile.formats.dialects import DIALECTS
from minimobile.formats.matching.detector import DetectorEnds
from minimobile.formats.matching.matching import match_network
from minimobile.formats.matching.network import Layer
from minimobile.formats.matching.other_networks import naming_others
from minimobile.formats.replaced_config import settle_quantized
from minimobile.formats.tflite.tflite_constants import fold_constants
from minimobile.formats.tflite.tflite_dequantized import WEIGHTED, dequantize, is_quantized, settle_pixels
from minimobile.formats.tflite.tflite_detection import (
    POST_PROCESSING,
    Ending,
    describe_post_processing,
    find_ending,
)
from minimobile.formats.tflite.tflite_floats import float_network
from minimobile.formats.tflite.tflite_layers import translate, translate_with_outputs
from minimobile.formats.tflite.tflite_metadata import metadata_buffers, pack_labels, read_own
from minimobile.formats.tflite.tflite_model import Model, parse_model, read_model
from minimobile.formats.tflite.tflite_quantized import name_tensors, to_network
from minimobile.formats.tflite.tflite_schema import TENSOR_TYPES
from minimobile.formats.tflite.tflite_writer import check_half, write_model
from minimobile.formats.validation import check_exportable
from minimobile.networks.config import Config
from minimobile.quantized.network import Network
from minimobile.storage.files import open_regular, user_path, write_whole_bytes

LABEL_LIMIT = 4 * 2**20
PRODUCER = "minimobile"
SUFFIX = ".tflite"
_END_OF_ZIP = b"PK\x05\x06"


def read(path: Path, config: Config | None = None) -> Checkpoint:
    """Read a file of float weights (float32, or float16 that the file itself widens), or of quantised ones.

    The weights of a quantised file are what its integers stand for, and `quantized` is its network of integers. A list
    of labels packed with the model names the classes where it has as many lines. Raises FormatError for damaged and
    hostile files, and networks that are no MobileNet.
    """
    model = read_model(path)
    with naming_others([*(tensor.name for tensor in model.tensors), *(operator.kind for operator in model.operators)]):
        checkpoint = _read_network(model, path, config)
    return checkpoint if config is not None else _name_classes(checkpoint, path)


def unpack(content: bytes, path: Path) -> Checkpoint:
    """Do what `read` does with what `pack` made; `path` is that of the file in which it was found."""
    return _read_network(parse_model(content, str(path)), path, None)


def _read_network(model: Model, path: Path, config: Config | None) -> Checkpoint:
    has_integers = is_quantized(model)
    if has_integers:
        model = name_tensors(model)
    source = model.tensors[model.inputs[0]]
    is_fixed = len(source.shape) == 4 and not {1, 2} & set(source.open_sizes)
    producer = {"producer": model.description[:200]} if model.description else {}
    ending = find_ending(model, str(path))
    has_own_head = has_integers and _has_own_head(model)
    model = fold_constants(model, str(path)) if has_own_head else model
    layers, detector = _translate(model, ending, has_integers, str(path))
    own = read_own(model.metadata, str(path))
    school = "stm32" if has_own_head and _is_undecoded_detector(model) else "tflite"
    match = partial(
        match_network,
        layers,
        DIALECTS[school if own is None else own.dialect],
        str(path),
        image_size=(source.shape[1], source.shape[2]) if is_fixed else None,
        provenance={"format": "tflite", "source": path.name} | producer,
        detector=detector,
        has_own_head=has_own_head,
    )
    with _naming_own_head(model, has_integers):
        checkpoint = match(config=own.config if own is not None and config is None else config)
    if has_integers:
        processor = settle_pixels(checkpoint.processor, source)
        integers, obstacle = _read_integers(model if ending is None else ending.body, path)
        checkpoint = dataclasses.replace(checkpoint, quantized=integers, obstacle=obstacle, processor=processor)
        if config is not None:
            checkpoint = settle_quantized(checkpoint, match().config)
    return checkpoint if own is None else dataclasses.replace(checkpoint, processor=own.processor)


def write(path: str | Path, checkpoint: Checkpoint, dtype: str = "float32", *, overwrite: bool = True) -> None:
    """Write a network's integers, or its floats with batch norm folded, to a file that every runtime of TFLite reads.

    The classes' names are packed with it, and its metadata says how pictures come in. `dtype` "float16" halves the
    weights of floats; the file itself widens them. Written wholly or not at all. Raises FormatError for a network that
    has no form in such a file, InputError for a file that is there, unless `overwrite`.
    """
    path = user_path(path)
    check_exportable(path, checkpoint, dtype)
    write_whole_bytes(path, pack_labels(pack(checkpoint, str(path), dtype), checkpoint), overwrite=overwrite)


def pack(checkpoint: Checkpoint, where: str, dtype: str = "float32") -> bytes:
    """Return what `write` writes, without the classes' names."""
    network = checkpoint.quantized or float_network(checkpoint, where)
    detection = describe_post_processing(checkpoint, network, where)
    if dtype == "float16":
        check_half(network, where)
    return write_model(network, PRODUCER, metadata_buffers(checkpoint, network), dtype, detection)


def _translate(
    model: Model, ending: Ending | None, has_integers: bool, where: str
) -> tuple[list[Layer], DetectorEnds | None]:
    """Return the layers of the floats that a file stands for, and of a detector, where they end."""
    if ending is None:
        return translate(dequantize(model, where) if has_integers else model, where), None
    cut = dataclasses.replace(ending.body, outputs=(*ending.boxes, *ending.classes))
    layers, names = translate_with_outputs(dequantize(cut, where) if has_integers else cut, where)
    count = len(ending.boxes)
    return layers, DetectorEnds(names[:count], names[count:], ending.ssd, ending.num_classes, ending.anchors)


def _read_integers(model: Model, path: Path) -> tuple[Network | None, Obstacle | None]:
    """Return the network of integers, or why it cannot be run as one: then it can still be dequantised."""
    try:
        return to_network(model, str(path)), None
    except FormatError as error:
        return None, Obstacle(str(error))


def describe(path: Path) -> Description:
    """Say what a file holds, whatever its network is and whatever its numbers are."""
    model = read_model(path)
    entries = tuple(
        Entry(tensor.name, tensor.shape, tensor.dtype) for tensor in model.tensors if tensor.is_constant and tensor.name
    )
    counts = Counter(operator.kind for operator in model.operators)

    def tell(numbers: tuple[int, ...]) -> str:
        found = (model.tensors[number] for number in numbers)
        return ", ".join(f"{tensor.name} {tensor.dtype} {tensor.shape}" for tensor in found)

    facts = {
        "input": tell(model.inputs),
        "output": tell(model.outputs),
        "operations": ", ".join(f"{kind} {count}" for kind, count in counts.most_common()),
        "numbers": _weight_type(model),
    }
    return Description("TFLite", "tflite", model.description or None, entries, facts)


@contextmanager
def _naming_own_head(model: Model, has_integers: bool) -> Iterator[None]:
    """Say of a file of floats with several results why it is refused, where it is."""
    try:
        yield
    except FormatError as error:
        if has_integers or not _has_own_head(model):
            raise
        count = len(model.outputs)
        raise FormatError(
            f"{error}; the file has a head of its own with {count} outputs, which runs from a quantised file alone"
        ) from error


def _has_own_head(model: Model) -> bool:
    """Whether a file has several results and computes no detections of them itself."""
    return len(model.outputs) > 1 and all(operator.kind != POST_PROCESSING for operator in model.operators)


def _is_undecoded_detector(model: Model) -> bool:
    """Whether the results are three tables of as many rows, one of them constant: offsets, scores, and anchors."""
    results = [model.tensors[number] for number in model.outputs]
    are_tables = len(results) == 3 and {len(result.shape) for result in results} == {3}
    return are_tables and len({result.shape[1] for result in results}) == 1 and any(r.is_constant for r in results)


def _weight_type(model: Model) -> str:
    """Return the type of the convolutions' weights."""
    types = [model.tensors[operator.inputs[1]].dtype for operator in model.operators if operator.kind in WEIGHTED]
    return " and ".join(sorted(set(types), key=TENSOR_TYPES.index)) or "none"


def _name_classes(checkpoint: Checkpoint, path: Path) -> Checkpoint:
    """Take the classes' names from the list of labels that is packed with the model, if one fits."""
    try:
        lists = _read_packed_texts(path)
    except FormatError as error:  # the network itself is whole
        return dataclasses.replace(checkpoint, ignored={**checkpoint.ignored, "packed files": str(error)})
    count = checkpoint.config.num_labels
    ignored = dict(checkpoint.ignored)
    config = checkpoint.config
    for name, labels in lists.items():
        if len(labels) == count and not checkpoint.architecture.endswith("Model"):
            config = config.replace(id2label=dict(enumerate(labels)))
        else:
            ignored[name] = f"a list of {len(labels)} lines, not of {count} labels"
    return dataclasses.replace(checkpoint, config=config, ignored=ignored)


def _read_packed_texts(path: Path) -> dict[str, list[str]]:
    """Return the lines of the text files in the zip archive behind the model: TFLite's "associated files"."""
    with open_regular(path) as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 22))
        if file.read(4) != _END_OF_ZIP:  # an archive with a comment is none of TFLite's own
            return {}
        members = stored_zip.read_directory(str(path), file, size)
        texts = {}
        for member in members.values():
            if not member.name.endswith(".txt"):
                continue
            if member.size > LABEL_LIMIT:
                raise FormatError(f"{path}: {member.name}: expected at most {LABEL_LIMIT} bytes, found {member.size}")
            try:
                text = stored_zip.read_member(str(path), file, member).decode("utf-8")
            except UnicodeDecodeError:
                raise FormatError(f"{path}: {member.name}: expected a text in UTF-8") from None
            texts[member.name] = text.splitlines()
    return texts
