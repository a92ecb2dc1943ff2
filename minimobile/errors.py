"""The errors a user can meet: every one a `MinimobileError` with one sentence, saying where, expected, got, way out."""

from __future__ import annotations


class MinimobileError(ValueError):
    """The base of every error that minimobile raises on purpose."""


class ConfigError(MinimobileError):
    """A model or processor configuration holds a value that has no meaning."""


class FormatError(MinimobileError):
    """A file is missing, truncated, hostile, or of a format or content that cannot be loaded."""


class InputError(MinimobileError):
    """An image, array or argument handed to a model or an image processor does not fit it."""


class UnknownLayerError(MinimobileError):
    """A layer was asked for by a name or index that the network does not have."""


class UnavailableError(MinimobileError):
    """Something optional is needed and absent: an extra, the network, a framework."""
