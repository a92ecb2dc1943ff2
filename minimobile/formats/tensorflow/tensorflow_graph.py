"""Frozen TensorFlow graphs (`.pb`): a GraphDef whose variables are constants. Nothing in them is ever executed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from minimobile.errors import FormatError
from minimobile.formats.checkpoint import Checkpoint
from minimobile.formats.description import Description, Entry
from minimobile.formats.dialects import find_dialect
from minimobile.formats.matching.detector import DetectorEnds
from minimobile.formats.matching.matching import match_network
from minimobile.formats.matching.network import Layer
from minimobile.formats.matching.other_networks import naming_others
from minimobile.formats.tensorflow.graph_constants import IDENTITIES, Constants
from minimobile.formats.tensorflow.graph_def import (
    GraphDef,
    find_node_name,
    read_graph,
    sort_nodes,
)
from minimobile.formats.tensorflow.tensorflow_detection import DIALECT as DETECTION
from minimobile.formats.tensorflow.tensorflow_detection import POST_PROCESSING, Ending, find_ending, name_ends
from minimobile.formats.tensorflow.tensorflow_ops import TRANSLATORS, translate
from minimobile.formats.tensorflow.tensorflow_preamble import Preamble, find_start
from minimobile.networks.config import Config
from minimobile.storage.files import read_limited

BYTE_LIMIT = 2**30  # the largest MobileNet has 25 MB

# Operations without effect beyond their result, which graphs have around the network: for shapes, pictures and checks.
# Nothing of them is computed.
AROUND = frozenset({
    "All", "Any", "Assert", "Cast", "Const", "Equal", "Exp", "Fill", "Floor", "FloorDiv", "FloorMod", "GatherV2",
    "Greater", "GreaterEqual", "Less", "LessEqual", "LogicalAnd", "LogicalNot", "LogicalOr", "Max", "Merge", "Min",
    "Neg", "NoOp", "NotEqual", "Pack", "PadV2", "Placeholder", "Prod", "Range", "Rank", "ResizeArea",
    "ResizeNearestNeighbor", "Round", "Rsqrt", "Select", "SelectV2", "Shape", "Slice", "Split", "SplitV", "Sqrt",
    "StridedSlice", "Sum", "Switch", "Tile", "TopKV2", "Transpose", "Unpack", "ZerosLike",
})  # fmt: skip


def read(path: Path, config: Config | None = None) -> Checkpoint:
    """Read a MobileNet V1, V2 or DeepLab from a frozen graph, whatever its nodes are called.

    `config` replaces the one that is found. Raises FormatError for files that are damaged or hostile, operations that
    no MobileNet has, and networks that are none.
    """
    graph, size = _open(path)
    producer = {} if graph.producer is None else {"producer": _name_producer(graph)}
    return read_network(graph, size, path, {"format": "tensorflow-graph"} | producer, config)


def read_network(
    graph: GraphDef, size: int, path: Path, provenance: Mapping[str, str], config: Config | None = None
) -> Checkpoint:
    """Return the checkpoint of a graph from a file of `size` bytes, as `read` does."""
    where = str(path)
    with naming_others(node.name for node in graph.nodes):
        preamble, layers, detector = _translate(graph, size, where)
        return match_network(
            layers,
            find_dialect(_name_school(layers) if detector is None else DETECTION),
            where,
            image_size=preamble.image_size,
            provenance={**provenance, "source": path.name, "input": preamble.source},
            config=config,
            detector=detector,
        )


def describe(path: Path) -> Description:
    """Return what is in a frozen graph: its constants, inputs and outputs, and how many there are of each operation."""
    graph, size = _open(path)
    producer = None if graph.producer is None else _name_producer(graph)
    return describe_graph(graph, size, path, "TensorFlow frozen graph", producer)


def describe_graph(graph: GraphDef, size: int, path: Path, kind: str, producer: str | None) -> Description:
    """Return what is in a graph that comes from a file of `kind`, as `describe` does."""
    entries = []
    for node in graph.nodes:
        if node.op == "Const":
            tensor = node.tensor("value")
            entries.append(Entry(node.name, tensor.shape, tensor.dtype))
    sources = {find_node_name(tensor) for node in graph.nodes for tensor in node.inputs}
    ends = [node.name for node in graph.nodes if node.name not in sources and node.op not in ("Assert", "NoOp")]
    counts = Counter(node.op for node in graph.nodes).most_common()
    try:
        _, layers, detector = _translate(graph, size, str(path))
        dialect = _name_school(layers) if detector is None else DETECTION
    except FormatError:  # `read` says why
        dialect = None
    return Description(
        kind,
        dialect,
        producer,
        tuple(entries),
        {
            "inputs": ", ".join(node.name for node in graph.nodes if node.op == "Placeholder"),
            "outputs": ", ".join(ends),
            "operations": ", ".join(f"{op} {count}" for op, count in counts),
        },
    )


def _open(path: Path) -> tuple[GraphDef, int]:
    """Return the graph, and the file's size."""
    content = read_limited(path, BYTE_LIMIT)
    return read_graph(memoryview(content), str(path)), len(content)


def _translate(graph: GraphDef, size: int, where: str) -> tuple[Preamble, tuple[Layer, ...], DetectorEnds | None]:
    ending = find_ending(graph, where)
    _check_operations(graph, ending, where)
    nodes = sort_nodes(graph if ending is None else ending.body, where)
    constants = Constants(nodes, size)
    preamble = find_start(nodes, constants, where)
    layers = translate(nodes, constants, preamble.start, preamble.layers, where)
    if ending is None:
        return preamble, layers, None
    named = {layer.tensor: layer.name for layer in layers}
    boxes, classes = (name_ends(tensors, named, where) for tensors in (ending.boxes, ending.classes))
    # TensorFlow scales the sums of these graphs; over 20 photographs, folding has 1.1 times its error to float64 and
    # scaling 0.6 times. What is made for browsers and phones is folded there, too.
    is_folded = ending.ssd.post_processing != "tensorflow"
    ends = DetectorEnds(boxes, classes, ending.ssd, ending.num_classes, ending.anchors, is_folded)
    return preamble, layers, ends


def _name_school(layers: Sequence[Layer]) -> str:
    """Return the dialect: Keras pads layers of stride 2 itself, one row below and one column on the right."""
    if any(layer.op == "concatenate" for layer in layers):
        return "deeplab"
    return "keras" if any(layer.attributes.get("padding") == ((0, 1), (0, 1)) for layer in layers) else "slim"


def _name_producer(graph: GraphDef) -> str:
    return f"TensorFlow, graph version {graph.producer}"


def _check_operations(graph: GraphDef, ending: Ending | None, where: str) -> None:
    """Refuse what could have an effect or is no arithmetic of a MobileNet, before anything of it is computed."""
    around = AROUND | IDENTITIES | (frozenset() if ending is None else POST_PROCESSING)
    for node in graph.nodes:
        if node.op not in TRANSLATORS and node.op not in around:
            raise FormatError(
                f"{where}: node {node.name[:80]}: expected an operation of a MobileNet, found {node.op[:80]}, which is "
                "not loaded"
            )
    if graph.function_count:
        raise FormatError(
            f"{where}: expected a graph of plain nodes, found a library of {graph.function_count} functions; freeze it "
            "with convert_variables_to_constants_v2, which inlines them"
        )
