"""What a model has because users of PyTorch's modules call it: where it means something for one that only runs."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, TypeVar

from minimobile.arguments import read_flag
from minimobile.errors import InputError
from minimobile.networks.config import MobileNetConfig
from minimobile.networks.dtypes import name_dtype

MethodsT = TypeVar("MethodsT", bound="ModuleMethods")

_TRAINED = (".running_mean", ".running_var")  # statistics, which PyTorch does not count as parameters


class ModuleMethods:
    """A model on the processor, always ready to run: what asks for just that returns the model, the rest is refused."""

    config: Any
    config_class: ClassVar[type[MobileNetConfig]]
    main_input_name: ClassVar[str] = "pixel_values"
    input_modalities: ClassVar[tuple[str, ...]] = ("image",)

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return the weights by name."""

    def eval(self: MethodsT) -> MethodsT:
        """Return the model: it is never in training."""
        return self

    def train(self: MethodsT, mode: bool = True) -> MethodsT:
        """Return the model for `mode=False`; raise InputError for True, for nothing here trains."""
        if read_flag(mode, "mode"):
            raise InputError(f"{type(self).__name__}.train: expected mode=False, got True; train it with PyTorch")
        return self

    def requires_grad_(self: MethodsT, requires_grad: bool = True) -> MethodsT:
        """Return the model for `requires_grad=False`; raise InputError for True, for there are no gradients."""
        return self.train(read_flag(requires_grad, "requires_grad"))

    def to(self: MethodsT, *arguments: Any, **named: Any) -> MethodsT:
        """Return the model where that is where, and what, it is: "cpu" and its own dtype. Raises InputError otherwise.

        Takes what a module's `to` takes: a device, a dtype, or both, by position or as `device` and `dtype`.
        """
        unknown = set(named) - {"device", "dtype", "non_blocking", "copy", "memory_format"}
        if unknown:
            raise InputError(f"to: expected device or dtype, got {min(unknown)!r}")
        for value in (*arguments, named.get("device"), named.get("dtype")):
            if value is None or isinstance(value, bool) or str(value) == "cpu" or name_dtype(value) == self.dtype:
                continue
            raise InputError(
                f"{type(self).__name__}.to: expected 'cpu' or {self.dtype}, which it is and stays, got {str(value)!r}"
            )
        return self

    def cpu(self: MethodsT) -> MethodsT:
        """Return the model: it runs on the processor."""
        return self

    def float(self: MethodsT) -> MethodsT:
        """Return the model where it is one of float32; raise InputError otherwise."""
        return self.to("float32")

    @property
    def device(self) -> str:
        """Where the model runs: "cpu"."""
        return "cpu"

    @property
    @abstractmethod
    def dtype(self) -> str:
        """What the model computes in: "float32", or "float64" for the reference engine that was asked for it."""

    @property
    def num_labels(self) -> int:
        """The number of classes."""
        return int(self.config.num_labels)

    @property
    def base_model_prefix(self) -> str:
        """What the names of the backbone's weights begin with."""
        return self.config_class.model_type

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Return the number of parameters as PyTorch counts them: batch norm's scale and shift, not its statistics.

        All would be trainable and none is an embedding, so both arguments change nothing.
        """
        return sum(values.size for name, values in self.state_dict().items() if not name.endswith(_TRAINED))
