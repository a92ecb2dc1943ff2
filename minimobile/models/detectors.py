"""The detectors' classes: SSD and SSDLite on MobileNet V1 and V2."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minimobile.arguments import read_whole
from minimobile.errors import InputError
from minimobile.execution.detection import PostProcessor, convert_scores
from minimobile.execution.runner import DataFormat, RunOptions
from minimobile.formats.checkpoint import Checkpoint
from minimobile.imaging.settings import MAX_EDGE
from minimobile.models.base_model import AskedStates, MobileNetModel
from minimobile.models.inputs import read_stored
from minimobile.models.outputs import ObjectDetectionOutput
from minimobile.networks import ssd
from minimobile.networks.anchors import make_anchors
from minimobile.networks.config import Config, MobileNetV1Config, MobileNetV2Config
from minimobile.networks.graph import Graph
from minimobile.operations.shapes import infer_shapes

if TYPE_CHECKING:
    from minimobile.quantized.detection import StoredDetection
    from minimobile.tracing.box_explanation import BoxExplanation

Array = NDArray[Any]


class _ObjectDetector(MobileNetModel):
    """A network that finds objects."""

    config: MobileNetV1Config | MobileNetV2Config

    def __init__(self, config: Config | None = None, **options: Any) -> None:
        """Make a model with random weights and the formula's anchors; `options` are those of the other models."""
        settled = self._check_config(self.config_class() if config is None else config)
        super().__init__(settled.replace(ssd=settled.ssd.replace(stored_anchors=0)), **options)

    def __call__(
        self,
        pixel_values: ArrayLike | None = None,
        output_hidden_states: AskedStates = None,
        return_dict: bool | None = None,
        *,
        labels: ArrayLike | None = None,
        data_format: DataFormat = "channels_first",
    ) -> ObjectDetectionOutput:
        """Return what was found, or its tuple with `return_dict=False` (which a type checker is not told).

        The arguments are those of the models without a head; `data_format` concerns pixel values and hidden states
        alone. Anchors are the checkpoint's own, else those that the config's formula gives for the pictures' size.
        Raises InputError for NaN in the predictions, and pictures of another size than the checkpoint's own anchors
        are for, and for `labels`: there is no loss of detections here.
        """
        if labels is not None:
            raise InputError(f"{type(self).__name__}: expected no labels, for a loss of detections is not computed")
        own: Mapping[str, str] = self._runner.results()
        names = tuple(own[what] for what in ("box_encodings", "logits", "scores")) if own else self.graph.outputs
        found, states = self._run_with_states(pixel_values, names, output_hidden_states, data_format)
        if own:
            encodings, logits, scores = (values.reshape(len(values), -1, values.shape[-1]) for values in found)
        else:
            encodings, logits = self._join(found, data_format)
            scores = convert_scores(logits, self._ssd.score_converter, self._engine_name)
        size = _picture_size(pixel_values, data_format)
        detections = self._post_processing(size).run(encodings, scores, type(self).__name__)
        output = ObjectDetectionOutput(
            logits=logits,
            pred_boxes=_as_centres(detections.decoded),
            hidden_states=states,
            box_encodings=encodings,
            detection_boxes=detections.boxes,
            detection_classes=detections.classes,
            detection_scores=detections.scores,
            num_detections=detections.counts,
        )
        return self._present(output, return_dict)

    def run_quantized(self, array: ArrayLike) -> Any:
        """Run a quantised file as it is: its input tensor in, its outputs out: boxes, classes, scores, count.

        Shapes: array (N, H, W, C), of the type of the file's input -> boxes (N, M, 4) as ymin, xmin, ymax, xmax,
        classes (N, M), scores (N, M), count (N), all float32; rows behind a picture's count are zeros. Raises
        InputError for another shape or type, and for a model that is not quantised.
        """
        end = self._stored_detection()
        stored = self._runner.run_stored(read_stored(array), None if end is None else end.names)
        assert end is not None, "a network in floats stores nothing"
        return end.run(stored, "run_quantized")

    def explain_box(
        self, pixel_values: ArrayLike | None, rank: int = 0, *, data_format: DataFormat = "channels_first"
    ) -> BoxExplanation:
        """Write out how the box of detection number `rank` (0: the best) of one picture comes about, step by step.

        Raises InputError for a rank that there is not, and for several pictures.
        """
        from minimobile.tracing.box_explanation import explain_box

        output = self(pixel_values, data_format=data_format)
        where = "explain_box"
        if len(output.logits) != 1:
            raise InputError(f"{where}: expected one picture, got {len(output.logits)}")
        count = int(output.num_detections[0])
        if isinstance(rank, bool) or not isinstance(rank, int) or not 0 <= rank < count:
            raise InputError(f"{where}: expected a detection between 0 and {count - 1}, of {count}, got {rank!r}")
        size = _picture_size(pixel_values, data_format)
        shapes = infer_shapes(self.graph, *size)
        is_by_class = self._ssd.use_regular_nms or self._ssd.post_processing == "tensorflow"
        row = rank if is_by_class else rank * self._ssd.max_classes_per_detection
        return explain_box(
            self._ssd, self.anchors(*size), [shapes[name][1:] for name in self.graph.outputs[: ssd.MAPS]],
            output.box_encodings[0], output.logits[0], rank, int(output.detection_classes[0, row]),
            float(output.detection_scores[0, row]), output.detection_boxes[0, row],
        )  # fmt: skip

    def anchors(self, height: int, width: int) -> NDArray[np.float32]:
        """Return the anchors (A, 4) as (y, x, h, w) for pictures of a size, relative to it; read-only."""
        return self._post_processing(
            (read_whole(height, "height", 1, MAX_EDGE), read_whole(width, "width", 1, MAX_EDGE))
        ).anchors

    def _settle(self, checkpoint: Checkpoint, graph: Graph, options: RunOptions) -> None:
        super()._settle(checkpoint, graph, options)
        self._engine_name = options.engine
        self._post_processing = functools.lru_cache(maxsize=8)(self._make_post_processor)
        self._stored_detection = functools.cache(self._make_stored_detection)

    @property
    def _ssd(self) -> Any:
        return ssd.settings(self.config)

    def _make_post_processor(self, size: tuple[int, int]) -> PostProcessor:
        anchors = self._weights.get(ssd.ANCHORS)
        if anchors is None:
            shapes = infer_shapes(self.graph, *size)
            anchors = make_anchors(self._ssd, size, [shapes[name][1:] for name in self.graph.outputs[: ssd.MAPS]])
            anchors.flags.writeable = False
        return PostProcessor(self._ssd, self.config.class_count, anchors, self._engine_name)

    def _make_stored_detection(self) -> StoredDetection | None:
        """Return what makes detections of a quantised network's results; None for a network in floats."""
        if self._integers is None:
            return None
        from minimobile.quantized.detection import StoredDetection  # with what no network in floats needs

        _, height, width, _ = self._integers.tensors[self._integers.inputs[0]].shape
        return StoredDetection(self._integers, self._post_processing((height, width)))

    @classmethod
    def _check_config(cls, config: object) -> Any:
        return ssd.settle(super()._check_config(config))

    def _join(self, maps: tuple[Array, ...], data_format: DataFormat) -> tuple[Array, Array]:
        """Return box encodings (N, A, 4) and class logits (N, A, K + 1) of the predictors' maps."""
        last = [y if data_format == "channels_last" else y.transpose(0, 2, 3, 1) for y in maps]
        count, columns = len(last[0]), self.config.class_count + 1
        boxes, classes = last[: ssd.MAPS], last[ssd.MAPS :]
        return (
            np.concatenate([y.reshape(count, -1, 4) for y in boxes], 1),
            np.concatenate([y.reshape(count, -1, columns) for y in classes], 1),
        )


class MobileNetV1ForObjectDetection(_ObjectDetector):
    """SSD or SSDLite on MobileNet V1, as `config.ssd` says; transformers has no such class."""

    config_class = MobileNetV1Config
    build = staticmethod(ssd.build)


class MobileNetV2ForObjectDetection(_ObjectDetector):
    """SSD or SSDLite on MobileNet V2, as `config.ssd` says; transformers has no such class."""

    config_class = MobileNetV2Config
    build = staticmethod(ssd.build)


def _picture_size(pixel_values: Any, data_format: DataFormat) -> tuple[int, int]:
    shape = np.shape(pixel_values)
    return (shape[1], shape[2]) if data_format == "channels_last" else (shape[2], shape[3])


def _as_centres(corners: Array) -> Array:
    """Return (centre x, centre y, width, height) for (ymin, xmin, ymax, xmax)."""
    low, high = corners[..., 1::-1], corners[..., 3:1:-1]
    return np.concatenate([(low + high) / 2, high - low], -1).astype(np.float32)
