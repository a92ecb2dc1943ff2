"""Image processors: pictures in, `pixel_values` for a model out; logits in, segmentation maps out.

Results equal those of transformers' PIL processors (5.23) to the bit; a few settings more do what other schools do. The
order of the steps is in `imaging.pipeline`.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from minimobile.arguments import read_flag
from minimobile.errors import ConfigError, InputError, MinimobileError, within_memory
from minimobile.execution.pixel_bytes import PixelBytes
from minimobile.imaging.batches import BatchFeature, require_framework, stack_arrays
from minimobile.imaging.detections import check_threshold, list_detections, reach, read_detections
from minimobile.imaging.files import format_settings, read_processor, write_processor
from minimobile.imaging.inputs import flatten_images
from minimobile.imaging.pipeline import prepare_image, process_image, process_map
from minimobile.imaging.post_processing import check_target_sizes, read_classes, read_logits
from minimobile.imaging.resampling import argmax_bilinear, interpolate_bilinear
from minimobile.imaging.settings import NEEDS, SEGMENTATION_SETTINGS, SETTINGS, Setting, standardize
from minimobile.imaging.tensorflow_transforms import resize_nearest
from minimobile.imaging.transforms import pad, resized_size
from minimobile.storage.files import user_path, write_whole_bytes

_WITHOUT_EFFECT = frozenset({  # they choose among transformers' classes, or tell it of its past
    "use_fast", "backend", "trust_remote_code", "code_revision", "_from_auto",
})  # fmt: skip

_CONSTANT = (bool, int, float, str, tuple, type(None))  # deepcopy returns these themselves
_Resize = Callable[..., NDArray[Any]]
_POST_PROCESS = "post_process_semantic_segmentation"

_Processor = TypeVar("_Processor", bound="_ImageProcessor")


class _ImageProcessor:
    """Settings are attributes, each of which a call may override.

    They have transformers' names, meanings and defaults, and are applied in this order:
        do_convert_rgb: None turns PIL images and files into RGB (alpha is dropped; into L for one value of image_mean)
            and leaves arrays alone. True composites transparency on white, and makes RGB of arrays of 1 and 4 channels.
            False leaves the channels of PIL images as they are. Files are turned upright by their EXIF orientation;
            PIL images are taken as they are, as in transformers (`PIL.ImageOps.exif_transpose` turns them).
        do_resize, size, resample: by PIL, in 8 bits. size is {"shortest_edge"}, with or without "longest_edge",
            {"height", "width"}, {"max_height", "max_width"}, a whole number (shortest edge) or a pair (height, width).
        do_center_crop, crop_size: zeros where the picture is smaller.
        do_rescale, rescale_factor; do_normalize, image_mean, image_std: numbers, or one per channel.
        do_pad, pad_size: zeros below and to the right, up to pad_size or else the largest picture (V1 only).
        data_format: "channels_first" (default) or "channels_last", for the result (transformers 5 ignores it).
        input_data_format: the layout of arrays; where absent, it is recognised by a first or last size of 1, 3 or 4.
        return_tensors: None for a list of arrays, "np" for one array (N, C, H, W), "pt", "tf", "jax" for a tensor.
    NaN pixels pass through rescaling and normalisation, and are refused by PIL's resizing.

    Other schools' settings have no effect until they are set; transformers ignores them. The whole order is:
    do_convert_rgb, central_fraction, do_resize, do_center_crop, canvas_size, do_rescale, do_normalize, do_pad.
        central_fraction: keep the middle of height and width, as tf.image.central_crop does.
        resize_method: "tf1_bilinear" or "tf1_bilinear_align_corners" resize as TensorFlow 1 does (no half pixels, no
            antialiasing) instead of by PIL; this and all later steps are in float32, as there. "half_pixel_bilinear"
            does it with half pixels, in bytes, as TFLite's Task library does for detectors.
        rescale_first: with a resize_method, do_rescale comes before do_resize.
        crop_rounding: "half_even" starts do_center_crop where torchvision does; None rounds down.
        canvas_size, canvas_value: lay the picture in the top left corner of a canvas of that size and value.
    """

    _table: ClassVar[Mapping[str, Setting]] = SETTINGS
    _type_name: ClassVar[str]
    _chosen: tuple[dict[str, Any], dict[str, Any]] | None = None  # dictionaries as they were, and what all came to
    model_input_names: ClassVar[list[str]] = ["pixel_values"]
    default_to_square = False

    do_convert_rgb: bool | None
    do_resize: bool | None
    size: dict[str, int] | None
    resample: int | None
    do_center_crop: bool | None
    crop_size: dict[str, int] | None
    do_rescale: bool | None
    rescale_factor: float | None
    do_normalize: bool | None
    image_mean: float | tuple[float, ...] | None
    image_std: float | tuple[float, ...] | None
    do_pad: bool | None
    pad_size: dict[str, int] | None
    data_format: str | None
    input_data_format: str | None
    return_tensors: str | None
    central_fraction: float | None
    resize_method: str | None
    rescale_first: bool | None
    crop_rounding: str | None
    canvas_size: dict[str, int] | None
    canvas_value: float | None

    def __init__(self, **settings: Any) -> None:
        self._set(settings, self._type_name)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        super().__setattr__("_chosen", None)

    def __call__(self, images: Any, **settings: Any) -> BatchFeature:
        """Do what `preprocess` does."""
        return self.preprocess(images, **settings)

    @within_memory("images")
    def preprocess(self, images: Any, **settings: Any) -> BatchFeature:
        """Turn pictures into `pixel_values`.

        Args:
            images: a path, the bytes of a picture file, a PIL image, an array or tensor (H, W, C) or (C, H, W), a batch
                of arrays (N, ...), or a list of such, nested or not.
            settings: override those of the processor for this call.

        Raises:
            InputError: an image or a setting that does not fit.
            FormatError: a file that cannot be read.
            UnavailableError: return_tensors names a framework that is not installed.
        """
        chosen = self._choose(settings)
        return BatchFeature(pixel_values=stack_arrays(self._process_images(images, chosen), chosen.return_tensors))

    @within_memory("images")
    def prepare(self, image: Any, **settings: Any) -> PixelBytes | NDArray[Any]:
        """Return what a model takes in place of the `pixel_values` that `preprocess` makes of a picture.

        The numbers are the same. Where they follow from bytes by a table they are left as bytes, of which a network in
        integers needs no floats; arguments and errors are those of `preprocess`.
        """
        chosen = self._choose(settings)
        items = flatten_images(image, 3, "images")
        if len(items) == 1 and not chosen.do_pad and chosen.data_format != "channels_last":
            ((item, name),) = items
            made = prepare_image(item, chosen, name)
            return made if isinstance(made, PixelBytes) else made[None]
        values: NDArray[Any] = self.preprocess(image, **{**settings, "return_tensors": "np"})["pixel_values"]
        return values

    @classmethod
    def from_pretrained(cls: type[_Processor], source: str | Path | None = None, **overrides: Any) -> _Processor:
        """Read a processor from a directory with `preprocessor_config.json`, or from such a file of any generation.

        `overrides` change settings; the hub's `revision`, `cache_dir`, `token`, `local_files_only`, `force_download`
        and `subfolder` are those of the models.

        Raises:
            FormatError: there is no such file, or it is not JSON.
            ConfigError: it holds a value of the wrong type or range. Unknown keys are ignored.
        """
        values, path, settings = read_processor(source, overrides)
        return cls._from_values(values, settings, str(path))

    @classmethod
    def from_json_file(cls: type[_Processor], json_file: str | Path) -> _Processor:
        """Read a processor from a JSON file of settings; errors as of `from_pretrained`."""
        return cls.from_pretrained(json_file)

    @classmethod
    def from_dict(cls: type[_Processor], values: Mapping[str, Any], **overrides: Any) -> _Processor:
        """Build a processor from the content of a `preprocessor_config.json`; unknown keys are ignored."""
        if not isinstance(values, Mapping):
            raise ConfigError(f"{cls._type_name}: expected a dictionary of settings, got {type(values).__name__}")
        return cls._from_values(values, overrides, cls._type_name)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as `preprocessor_config.json` has them; those that are None by default are left out."""
        values = {name: copy.deepcopy(getattr(self, name)) for name in self._stored_names()}
        kept = {
            name: value for name, value in values.items() if value is not None or self._table[name].default is not None
        }
        return {**kept, "image_processor_type": self._type_name}

    def to_json_string(self) -> str:
        """Return the settings as sorted JSON text, as the file has it."""
        return format_settings(self.to_dict())

    def to_json_file(self, json_file_path: str | Path) -> None:
        """Write `to_json_string` to a file, whole or not at all."""
        write_whole_bytes(user_path(json_file_path, "json_file_path"), self.to_json_string().encode())

    def save_pretrained(self, save_directory: str | Path) -> list[str]:
        """Write `preprocessor_config.json`, which transformers reads too; return its path in a list, as they do."""
        return [str(write_processor(save_directory, self.to_dict()))]

    def __repr__(self) -> str:
        return f"{self._type_name} {self.to_json_string().rstrip()}"

    @classmethod
    def _from_values(
        cls: type[_Processor], values: Mapping[str, Any], overrides: Mapping[str, Any], where: str
    ) -> _Processor:
        known = {_current_name(name): value for name, value in values.items()}
        known = {name: value for name, value in known.items() if name in cls._table}
        known.update((name, value) for name, value in overrides.items() if name not in _WITHOUT_EFFECT)
        processor = cls.__new__(cls)
        processor._set(known, where)
        return processor

    @classmethod
    def _stored_names(cls) -> list[str]:
        return [name for name in cls._table if name != "default_to_square"]

    def _set(self, settings: Mapping[str, Any], where: str) -> None:
        values = self._standardize(settings, where, ConfigError)
        for name in self._stored_names():  # None is kept: as in transformers it switches a step off
            setattr(self, name, values[name] if name in values else copy.deepcopy(self._table[name].default))

    def _standardize(self, settings: Mapping[str, Any], where: str, error: type[MinimobileError]) -> dict[str, Any]:
        values = {_current_name(name): value for name, value in settings.items()}
        square = values.get("default_to_square", self.default_to_square) is True
        return standardize(values, self._table, square=square, where=where, error=error)

    def _choose(self, settings: Mapping[str, Any]) -> SimpleNamespace:
        """Merge the settings of a call into those of the processor, and see that each step has what it needs."""
        known = None if settings else self._chosen
        if known is not None and all(getattr(self, name) == value for name, value in known[0].items()):
            return SimpleNamespace(**known[1])
        own = {name: getattr(self, name) for name in self._stored_names()}
        merged = {**own, **{_current_name(name): value for name, value in settings.items()}}
        values = self._standardize(merged, self._type_name, InputError)
        for step, needed in NEEDS.items():
            for name in needed:
                if values[step] and values[name] is None:
                    raise InputError(f"{self._type_name}: {step}={values[step]} needs {name}, got None")
        require_framework(values["return_tensors"])
        if not settings and all(isinstance(value, _CONSTANT) or type(value) is dict for value in own.values()):
            changeable = {name: copy.deepcopy(value) for name, value in own.items() if type(value) is dict}
            object.__setattr__(self, "_chosen", (changeable, values))
        return SimpleNamespace(**values)

    def _process_images(self, images: Any, chosen: SimpleNamespace) -> list[NDArray[Any]]:
        items = flatten_images(images, 3, "images")
        pixels = [process_image(item, chosen, name) for item, name in items]
        if chosen.do_pad:
            size = chosen.pad_size or {
                "height": max(array.shape[1] for array in pixels),
                "width": max(array.shape[2] for array in pixels),
            }
            pixels = [pad(array, size["height"], size["width"]) for array in pixels]
        if chosen.data_format == "channels_last":
            pixels = [np.moveaxis(array, 0, -1) for array in pixels]
        return pixels

    def post_process_object_detection(
        self, outputs: Any, threshold: float = 0.5, target_sizes: Sequence[tuple[int, int]] | None = None
    ) -> list[dict[str, Any]]:
        """List what a detector found and scores more than `threshold`, the best first.

        Args:
            outputs: what the model returned: its own post-processing has chosen among overlapping boxes.
            threshold: between 0 and 1.
            target_sizes: (height, width) of each picture; None leaves boxes relative to it. Boxes may reach beyond.

        Returns:
            Per picture {"scores" (D) float32, "labels" (D) int64, "boxes" (D, 4) float32: xmin, ymin, xmax, ymax}.
        """
        where = "post_process_object_detection"
        found = read_detections(outputs, where)
        resize = self.size if self.do_resize else None
        asked = check_target_sizes(target_sizes, len(found[0]), where)
        sizes = [reach(size, resize, self.canvas_size) for size in asked]
        return list_detections(found, check_threshold(threshold, where), sizes)


class MobileNetV1ImageProcessor(_ImageProcessor):
    """The image processor of MobileNet V1."""

    __doc__ = f"{__doc__}\n\n{_ImageProcessor.__doc__}"
    _type_name = "MobileNetV1ImageProcessor"


class MobileNetV2ImageProcessor(_ImageProcessor):
    """The image processor of MobileNet V2, which also prepares segmentation maps and reads segmentations from logits.

    One setting more: do_reduce_labels (older name reduce_labels), for maps whose classes count from 1: 0 and 255 become
    255, others lose 1. do_pad has no effect, as in transformers.
    """

    __doc__ = f"{__doc__}\n\n{_ImageProcessor.__doc__}"
    _type_name = "MobileNetV2ImageProcessor"
    _table = SEGMENTATION_SETTINGS
    do_reduce_labels: bool | None

    def __call__(self, images: Any, segmentation_maps: Any = None, **settings: Any) -> BatchFeature:
        """Do what `preprocess` does."""
        return self.preprocess(images, segmentation_maps, **settings)

    @within_memory("images")
    def preprocess(self, images: Any, segmentation_maps: Any = None, **settings: Any) -> BatchFeature:
        """Turn pictures into `pixel_values`, and the maps of their classes, where given, into `labels`.

        Args:
            images: as for `MobileNetV1ImageProcessor.preprocess`.
            segmentation_maps: one map of class ids (H, W) per picture, in the same forms; palette images keep their
                indices. Resized by NEAREST, cropped with zeros where smaller; the result is int64. Never changed.
            settings: override those of the processor for this call.

        Raises: as `MobileNetV1ImageProcessor.preprocess`.
        """
        chosen = self._choose(settings)
        chosen.do_pad = None
        pixels = self._process_images(images, chosen)
        data = BatchFeature(pixel_values=stack_arrays(pixels, chosen.return_tensors))
        if segmentation_maps is not None:
            items = flatten_images(segmentation_maps, 2, "segmentation_maps")
            if len(items) != len(pixels):
                raise InputError(f"{self._type_name}: expected {len(pixels)} segmentation maps, got {len(items)}")
            data["labels"] = stack_arrays(
                [process_map(item, chosen, name) for item, name in items], chosen.return_tensors
            )
        return data

    def post_process_semantic_segmentation(
        self,
        outputs: Any,
        target_sizes: Sequence[tuple[int, int]] | None = None,
        return_segmentation_scores: bool = False,
    ) -> list[Any]:
        """Find the class of every pixel: logits are upsampled bilinearly (align_corners=False), the largest wins.

        A processor with a canvas_size does what DeepLab does: logits are upsampled to the canvas (align_corners=True),
        the largest wins, the part that the picture had is cut out (where it was follows from its size and the
        settings), and the nearest classes fill the picture's own size. Outputs that have `classes` (N, h, w), as those
        of a quantised file that ends in them, have found them already.

        Args:
            outputs: what the model returned, or anything with `logits` (N, C, h, w).
            target_sizes: (height, width) of each picture; None keeps h and w.
            return_segmentation_scores: give the upsampled logits too.

        Returns:
            Per picture, an int64 array (H, W); with scores, a BatchFeature of `segmentation` and `segmentation_scores`
            (C, H, W).
        """
        if not read_flag(return_segmentation_scores, "return_segmentation_scores"):
            return [classes.astype(np.int64) for classes in self.find_class_maps(outputs, target_sizes)]
        logits, sizes = read_logits(outputs, target_sizes, _POST_PROCESS)
        maps = (self._segment(scores, size, interpolate_bilinear) for scores, size in zip(logits, sizes, strict=True))
        return [BatchFeature(segmentation=scores.argmax(0), segmentation_scores=scores) for scores in maps]

    def find_class_maps(
        self, outputs: Any, target_sizes: Sequence[tuple[int, int]] | None = None
    ) -> list[NDArray[np.unsignedinteger[Any]]]:
        """Find what `post_process_semantic_segmentation` does, per picture (H, W) in the smallest type that holds it.

        A byte for up to 256 classes: of a photograph of 12 megapixels 12 MB, where int64 takes 96.
        """
        own = read_classes(outputs, _POST_PROCESS)
        if own is not None:
            sizes = check_target_sizes(target_sizes, len(own), _POST_PROCESS)
            return [self._cut_out(classes, size) for classes, size in zip(own, sizes, strict=True)]
        logits, sizes = read_logits(outputs, target_sizes, _POST_PROCESS)
        dtype = np.min_scalar_type(logits.shape[1] - 1)
        choose = functools.partial(argmax_bilinear, dtype=dtype)
        return [
            (logits[i].argmax(0) if size is None else self._segment(logits[i], size, choose)).astype(dtype, copy=False)
            for i, size in enumerate(sizes)
        ]

    def _segment(self, logits: NDArray[Any], size: tuple[int, int] | None, bilinear: _Resize) -> NDArray[Any]:
        """Bring logits (C, h, w) to a picture's size by a function: to the classes (H, W), or the scores (C, H, W)."""
        if size is None:
            return logits
        if self.canvas_size is None:
            return bilinear(logits, size)
        canvas = self.canvas_size["height"], self.canvas_size["width"]
        return self._cut_out(bilinear(logits, canvas, align_corners=True), size)

    def _cut_out(self, found: NDArray[Any], size: tuple[int, int] | None) -> NDArray[Any]:
        """Bring what was found for the canvas, (..., H, W), or for the whole picture, to the picture's own size."""
        if size is None:
            return found
        if self.canvas_size is None:
            return resize_nearest(found, size)
        height, width = resized_size(*size, self.size) if self.do_resize and self.size else size
        if height > found.shape[-2] or width > found.shape[-1]:
            raise InputError(
                f"post_process_semantic_segmentation: expected pictures of at most {found.shape[-2]}x{found.shape[-1]} "
                f"pixels, as canvas_size says, got {height}x{width} for the target size {size[0]}x{size[1]}"
            )
        return resize_nearest(found[..., :height, :width], size)


MobileNetV1FeatureExtractor = MobileNetV1ImageProcessorPil = MobileNetV1ImageProcessor
MobileNetV2FeatureExtractor = MobileNetV2ImageProcessorPil = MobileNetV2ImageProcessor


def _current_name(name: str) -> str:
    return "do_reduce_labels" if name == "reduce_labels" else name
