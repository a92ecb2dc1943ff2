"""Networks among all that were published: accuracy over multiply-adds."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from minimobile.costs.profile import profile
from minimobile.costs.published_accuracy import PUBLISHED
from minimobile.imaging.charts import Point, draw_points
from minimobile.models.inspection import NetworkCosts
from minimobile.networks.build_graph import build_graph
from minimobile.networks.config import MobileNetV1Config, MobileNetV2Config

SHAPES = {"mobilenet_v1": "circle", "mobilenet_v2": "square"}


def draw_costs(networks: Sequence[NetworkCosts]) -> Image.Image:
    """Return a chart of the networks, and of all published classifiers around them.

    A network with no published accuracy at its width and size, or with other classes than ImageNet's, is a hollow mark
    on the lower edge, at its cost.
    """
    points = [*_published_points()]
    for network in networks:
        million = network.profile.multiply_adds / 1e6
        points.append(Point(million, network.accuracy, SHAPES[network.config.model_type], network.title))
    note = (
        "Small marks: the published classifiers, V1 round, V2 square (accuracy: tensorflow/models; cost: counted).\n"
        "A hollow large mark on the lower edge: no accuracy was published for it."
    )
    axes = "million multiply-adds, logarithmic", "% top-1 accuracy on ImageNet, published"
    return draw_points(points, "Accuracy against cost", axes, note)


def _published_points() -> tuple[Point, ...]:
    configs = {"mobilenet_v1": MobileNetV1Config, "mobilenet_v2": MobileNetV2Config}
    points = []
    for model_type, by_width in PUBLISHED.items():
        architecture = f"MobileNet{model_type[-2:].upper()}ForImageClassification"
        for width, by_size in by_width.items():
            graph = build_graph(configs[model_type](depth_multiplier=width, num_labels=1001), architecture)
            for size, accuracy in by_size.items():
                million = profile(graph, (size, size)).multiply_adds / 1e6
                points.append(Point(million, accuracy, SHAPES[model_type]))
    return tuple(points)
