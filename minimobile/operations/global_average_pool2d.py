"""Average pooling over the whole map."""

from __future__ import annotations

from minimobile.networks.graph import Node
from minimobile.operations.average_pool2d import AveragePool2d
from minimobile_kernels.geometry import Window, window


class GlobalAveragePool2d(AveragePool2d):
    """The pool whose window is the map itself."""

    attributes = ()
    title = "Avg Pool, all"
    sees_all = True

    def window(self, node: Node, height: int, width: int) -> Window:
        """Return the window of all pixels."""
        return window(height, width, (height, width), 1, 1, "VALID")
