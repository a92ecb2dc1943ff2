"""What goes into the network: the pictures one at a time as pixel values, and what their bytes stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minimobile.arrays import read_array
from minimobile.calibration.data_free import Moments
from minimobile.calibration.ranges import Range
from minimobile.errors import InputError, MinimobileError
from minimobile.formats.dialects import IMAGENET, read_normalization
from minimobile.imaging.folders import list_pictures, refuse_folder
from minimobile.imaging.pictures import describe_source
from minimobile.models.base_model import MobileNetModel

Floats = NDArray[np.float32]
Track = Callable[[Any], Iterable[Any]]
"""Yields the items of a sequence, and shows how far it has come."""


class Pictures:
    """Pictures for calibration, read anew at every pass: one is held at a time.

    Folders stand for all pictures below them, an array for pixel values (N, C, H, W). What cannot be read is left out,
    and the sentences that say why are kept in `skipped`; `used` is how many there are otherwise, after a whole pass.
    """

    def __init__(self, model: MobileNetModel, pictures: Any, track: Track = iter) -> None:
        if isinstance(pictures, str | Path | bytes) or not isinstance(pictures, Sequence | np.ndarray):
            pictures = [pictures]
        self.items = pictures if isinstance(pictures, np.ndarray) else list(_expand(pictures))
        if isinstance(pictures, np.ndarray) and pictures.ndim != 4:
            raise InputError(
                f"pictures: expected pixel values (N, C, H, W) or a list of pictures, got {pictures.shape}"
            )
        self.model = model
        self.size = input_size(model)
        self.track = track
        self.skipped: tuple[str, ...] = ()
        self.used = 0

    def __iter__(self) -> Iterator[Floats]:
        """Yield pixel values (1, C, H, W). Raises InputError where no picture can be used."""
        skipped: list[str] = []
        count = 0
        for item in self.track(self.items):
            try:
                values = self._read(item)
            except MinimobileError as error:
                skipped.append(str(error))
                continue
            count += 1
            yield values
        self.skipped, self.used = tuple(skipped), count
        if not count:
            found = f"{len(self.items)} that cannot" if len(self.items) else "none"
            reason = f" ({skipped[0]})" if skipped else ""
            raise InputError(f"pictures: expected at least one that can be used, got {found}{reason}")

    def _read(self, item: Any) -> Floats:
        if isinstance(self.items, np.ndarray):
            values = read_array(item, "pixel_values").astype(np.float32)[None]
        elif self.model.processor is None:
            raise InputError(
                "pictures: expected pixel values (N, C, H, W) for a model without image-processor settings"
            )
        else:
            if isinstance(item, str | Path):
                refuse_folder(Path(item))
            values = np.asarray(self.model.processor(item, return_tensors="np")["pixel_values"], np.float32)
        channels, (height, width) = self.model.config.num_channels, self.size
        if values.shape != (1, channels, height, width) or not np.isfinite(values).all():
            found = values.shape if np.isfinite(values).all() else "NaN or infinity"
            name = "pixel_values" if isinstance(self.items, np.ndarray) else describe_source(item)
            raise InputError(f"{name}: expected finite pixel values {(1, channels, height, width)}, got {found}")
        return values


def input_size(model: MobileNetModel) -> tuple[int, int]:
    """Return the height and width of a model's pictures, from its config."""
    side = model.config.image_size
    return (side, side) if isinstance(side, int) else (side[0], side[-1])


def pixel_range(settings: Mapping[str, Any] | None, channels: int) -> tuple[NDArray[np.float64], ...] | None:
    """Return the pixel values of bytes 0 and 255, (C) each, as an image processor's settings have it; None: unknown."""
    if settings is None:
        return None
    by = read_normalization(settings, channels)
    return (0 * by.factor - by.mean) / by.std, (255 * by.factor - by.mean) / by.std


def is_single(limits: tuple[NDArray[np.float64], ...]) -> bool:
    """Tell whether all channels have one range of pixel values, with 0 in it: then a byte can stand for each."""
    low, high = limits
    return len(set(low)) == 1 and len(set(high)) == 1 and low[0] <= 0 <= high[0]


def expect_pixels(settings: Mapping[str, Any], channels: int, limits: Range) -> Moments:
    """Return what to expect of photographs: the mean and deviation of ImageNet's, as the settings normalise them."""
    by = read_normalization(settings, channels)
    usual_mean, usual_std = (np.array(values) if channels == 3 else np.mean(values) for values in IMAGENET[1:])
    deviation = np.broadcast_to(usual_std * 255 * by.factor / by.std, (channels,))
    low, high = (np.full(channels, limit) for limit in limits)
    return Moments((usual_mean * 255 * by.factor - by.mean) / by.std, deviation**2, low, high)


def _expand(pictures: Iterable[Any]) -> Iterator[Any]:
    for item in pictures:
        found = list_pictures(Path(item)) if isinstance(item, str | Path) else []
        yield from found or [item]
