"""The graph of a config and an architecture: which of the papers' networks it is, and with which head."""

from __future__ import annotations

from typing import Literal

from minimobile.networks import deeplab, mobilenet_v1, mobilenet_v2, ssd
from minimobile.networks.config import Config, MobileNetV1Config
from minimobile.networks.graph import Graph


def build_graph(config: Config, architecture: str) -> Graph:
    """Return the graph that the class named `architecture` runs."""
    if architecture.endswith("Detection"):
        return ssd.build(config)
    head: Literal["none", "classification"] = "classification" if architecture.endswith("Classification") else "none"
    if isinstance(config, MobileNetV1Config):
        return mobilenet_v1.build(config, head)
    return deeplab.build(config) if architecture.endswith("Segmentation") else mobilenet_v2.build(config, head)
