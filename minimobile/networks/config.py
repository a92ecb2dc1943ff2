"""Model configurations with the fields and defaults of transformers' classes of the same name, and four of our own.

What a field means for the network is in `mobilenet_v1.py` and `mobilenet_v2.py`; here values are held and checked.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn, TypeAlias, TypeVar

from minimobile.errors import ConfigError, FrozenConfigError
from minimobile.networks.config_files import ConfigFiles
from minimobile.networks.dtypes import name_dtype
from minimobile.networks.ssd_config import MobileNetSSDConfig
from minimobile.storage.strict_json import is_text
from minimobile.tables import facts_table

ACTIVATIONS = ("relu6", "relu", "leaky_relu", "silu", "swish", "hardswish", "gelu", "sigmoid", "tanh", "linear")
OUTPUT_STRIDES = (2, 4, 8, 16, 32)
BOTTOM_RIGHT_PADDINGS = ("depthwise", "all")
PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")
_OLD_SPELLINGS = {
    "torch_dtype": "dtype",
    "use_return_dict": "return_dict",
    "classifier_dropout": "classifier_dropout_prob",
    "dropout_prob": "classifier_dropout_prob",
}
_WITHOUT_MEANING = frozenset({  # what transformers' configs of these networks hold that no MobileNet looks at
    "transformers_version", "name_or_path", "_name_or_path", "output_attentions", "chunk_size_feed_forward",
    "is_encoder_decoder", "attn_implementation", "experts_implementation", "torchscript", "tie_word_embeddings",
})  # fmt: skip
_OF_EVERY_MODEL = {  # left out of to_diff_dict where they say what transformers' base class of configs says
    "id2label": {0: "LABEL_0", 1: "LABEL_1"},
    "label2id": {"LABEL_0": 0, "LABEL_1": 1},
    "output_hidden_states": False,
    "return_dict": True,
}

_ABSENT = object()
_shorten = reprlib.Repr()
_shorten.maxdict = 3
_shorten.maxstring = 60

ConfigT = TypeVar("ConfigT", bound="MobileNetConfig")


def _as_in_transformers(cls: type[ConfigT]) -> type[ConfigT]:
    """Have a config's constructor take what transformers' takes (`cls(**config.to_dict())`), and assignments a way out.

    Both replace what `dataclass` writes into a class, so they come after it.
    """
    own_init = cls.__init__

    @functools.wraps(own_init)
    def init(self: ConfigT, *positional: Any, **given: Any) -> None:
        if positional:
            raise ConfigError(f"{cls.__name__}: expected its fields by name, got {len(positional)} without one")
        own_init(self, **cls._read_names(given))

    for name, method in {"__init__": init, "__setattr__": _refuse_value, "__delattr__": _refuse_value}.items():
        setattr(cls, name, method)
    return cls


def _refuse_value(config: MobileNetConfig, name: str, value: object = None) -> NoReturn:
    config.update({name: value})


@dataclass(frozen=True, eq=True, kw_only=True, repr=False)
class MobileNetConfig(ConfigFiles):
    """What both generations share. `depth_multiplier` is the papers' width multiplier alpha.

    A config does not change once it is made, for a model's graph has been built from it: `replace` gives a changed one.

    `pool_size=None` pools the whole feature map; 7 is the original's fixed window ("VALID"; stride 2 on V1, 1 on V2),
    never larger than the feature map. `bottom_right_padding` is Keras' rule: layers of stride 2 get one row of zeros
    below and one column on the right, whatever the image's size ("depthwise": the depthwise ones, as Keras 3's V1;
    "all": the first convolution, too, as keras-applications 1.0; None: what `tf_padding` says). With `folds_batch_norm`
    batch norm is part of the weights, each rounded once; else it scales and shifts the sums, as training does. `ssd`
    says what a detector has besides its backbone (a `MobileNetSSDConfig`, or a dict of its fields; None: SSDLite).
    """

    model_type: ClassVar[str] = ""

    num_channels: int = 3
    image_size: int | Sequence[int] = 224
    depth_multiplier: float = 1.0
    min_depth: int = 8
    output_stride: int = 32
    hidden_act: str = "relu6"
    tf_padding: bool = True
    classifier_dropout_prob: float = 0.999
    initializer_range: float = 0.02
    layer_norm_eps: float = 0.001
    pool_size: int | None = None
    bottom_right_padding: str | None = None
    folds_batch_norm: bool = True
    ssd: MobileNetSSDConfig | None = None

    num_labels: int | None = None
    id2label: Mapping[int, str] | None = None
    label2id: Mapping[str, int] | None = None
    problem_type: str | None = None
    output_hidden_states: bool = False
    return_dict: bool = True
    dtype: str | None = None
    architectures: Sequence[str] | None = None

    __hash__ = None  # type: ignore[assignment]  # holds dicts

    def __post_init__(self) -> None:
        if self.dtype is not None and not isinstance(self.dtype, str):  # torch.float32, np.float32 or a NumPy dtype
            object.__setattr__(self, "dtype", name_dtype(self.dtype))
        if isinstance(self.ssd, Mapping):
            object.__setattr__(self, "ssd", MobileNetSSDConfig.from_dict(self.ssd))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            self._check_type(field.name, str(field.type), value)
            if field.type == "float":  # transformers refuses a config.json with 1 for 1.0
                try:
                    object.__setattr__(self, field.name, float(value))
                except OverflowError:
                    raise ConfigError(f"{field.name}: expected a number that a float can hold, got more") from None
            elif isinstance(value, list):  # so that a config equals the one read back from its JSON
                object.__setattr__(self, field.name, tuple(value))
        self._check_values()
        self._settle_labels()

    @property
    def width_multiplier(self) -> float:
        """The papers' alpha: `depth_multiplier` under the name used in this project."""
        return self.depth_multiplier

    @property
    def use_return_dict(self) -> bool:
        """The older name of `return_dict`."""
        return self.return_dict

    @property
    def torch_dtype(self) -> str | None:
        """The older name of `dtype`."""
        return self.dtype

    @property
    def labels(self) -> dict[int, str]:
        """Class index -> name, for every class; `LABEL_3` where the file names none."""
        assert self.id2label is not None
        return dict(self.id2label)

    @property
    def class_count(self) -> int:
        """The number of classes (`num_labels` as a plain int)."""
        assert self.num_labels is not None
        return self.num_labels

    def to_dict(self) -> dict[str, Any]:
        """Return what `config.json` holds: plain JSON values, `model_type` included.

        Our own fields are left out while they say what transformers does anyway.
        """
        values: dict[str, Any] = {"model_type": self.model_type}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, MobileNetSSDConfig):
                value = value.to_dict()
            elif isinstance(value, Mapping):
                value = dict(value)
            elif isinstance(value, Sequence) and not isinstance(value, str):
                value = list(value)
            values[field.name] = value
        del values["num_labels"]  # follows from id2label
        for name in ("pool_size", "bottom_right_padding", "ssd", "problem_type", "dtype", "architectures"):
            if values[name] is None:
                del values[name]
        if self.folds_batch_norm:
            del values["folds_batch_norm"]
        return values

    def to_diff_dict(self) -> dict[str, Any]:
        """Return `to_dict` without what every model's config has and this one leaves as it is: the fields of the file.

        Fields of MobileNets stay, also where they have their defaults, as in transformers.
        """
        values = self.to_dict()
        return {name: value for name, value in values.items() if _OF_EVERY_MODEL.get(name, _ABSENT) != value}

    def replace(self: ConfigT, **changes: Any) -> ConfigT:
        """Return a copy with some fields changed; a new `num_labels` renames the labels, new labels recount them."""
        changes = self._read_names(changes)
        if "id2label" in changes:
            changes.setdefault("num_labels", None)
            changes.setdefault("label2id", None)
        elif "num_labels" in changes and str(changes["num_labels"]) != str(self.num_labels):
            changes.update(id2label=None, label2id=None)
        return dataclasses.replace(self, **changes)

    def update(self, values: Mapping[str, Any]) -> NoReturn:
        """Raise FrozenConfigError, which says how to make a changed config: transformers changes this one instead."""
        changes = ", ".join(f"{name}={reprlib.repr(value)}" for name, value in values.items())
        raise FrozenConfigError(
            f"{type(self).__name__}: a config does not change once it is made; write config = "
            f"config.replace({changes}), and make or load the model with that"
        )

    def __repr__(self) -> str:
        """Return the fields that are not as the class has them, labels shortened: one that fits a screen."""
        parts = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in ("num_labels", "label2id") or value == field.default:
                continue
            if field.name == "id2label":
                if value == _OF_EVERY_MODEL["id2label"]:
                    continue
                parts.append(f"num_labels={self.num_labels}")
            parts.append(f"{field.name}={_shorten.repr(value)}")
        return f"{type(self).__name__}({', '.join(parts)})"

    def _repr_html_(self) -> str:
        """Return the fields as a table, for notebooks."""
        fields = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))
        return facts_table([(name, _shorten.repr(value)) for name, value in fields], type(self).__name__).to_html()

    @classmethod
    def from_dict(cls: type[ConfigT], values: Mapping[str, Any], **overrides: Any) -> ConfigT:
        """Build a config from the content of a `config.json`; unknown keys are ignored, `overrides` are not."""
        if not isinstance(values, Mapping):
            raise ConfigError(f"{cls.__name__}: expected a JSON object, got {type(values).__name__}")
        kept = cls._read_names(values, is_file=True)
        if kept.get("id2label") is not None:
            kept["id2label"] = _integer_keys(cls.__name__, kept["id2label"])
            kept.pop("num_labels", None)
        config = cls(**kept)
        return config.replace(**overrides) if overrides else config

    @classmethod
    def _read_names(cls, values: Mapping[str, Any], is_file: bool = False) -> dict[str, Any]:
        """Return the fields among `values` under today's names, without what means nothing here.

        Raises ConfigError for the model_type of another class, and, unless in a file, for a name that nobody knows.
        """
        found = values.get("model_type", cls.model_type)
        if found != cls.model_type:
            raise ConfigError(
                f"{cls.__name__}: expected a config with model_type {cls.model_type!r}, got {found!r}; "
                "load it with the class of that model"
            )
        fields = {field.name for field in dataclasses.fields(cls)}
        kept: dict[str, Any] = {}
        for key, value in values.items():
            name = _OLD_SPELLINGS.get(key, key)
            if name in fields:
                if key == name or name not in values:
                    kept[name] = value
            elif not (is_file or key in _WITHOUT_MEANING or key == "model_type"):
                import difflib  # for a mistake alone

                close = difflib.get_close_matches(key, fields, 1)
                raise ConfigError(
                    f"{cls.__name__}: there is no field {key!r}; "
                    + (f"did you mean {close[0]}?" if close else "help() of the class lists those that there are")
                )
        return kept

    def _check_type(self, name: str, annotation: str, value: object) -> None:
        allowed: dict[str, tuple[type, ...]] = {
            "int": (int,),
            "float": (int, float),
            "str": (str,),
            "bool": (bool,),
            "Mapping": (Mapping,),
            "Sequence": (list, tuple),
            "None": (type(None),),
            "MobileNetSSDConfig": (MobileNetSSDConfig,),
        }
        types = tuple(t for part in annotation.split(" | ") for t in allowed[part.split("[")[0]])
        is_stray_bool = isinstance(value, bool) and bool not in types
        if is_stray_bool or not isinstance(value, types):
            raise ConfigError(
                f"{type(self).__name__}: expected {name} to be {annotation}, got {value!r}; correct it in config.json"
            )

    def _check_values(self) -> None:
        def demand(is_right: bool, name: str, expected: str) -> None:
            if not is_right:
                raise ConfigError(
                    f"{type(self).__name__}: expected {name} to be {expected}, got {getattr(self, name)!r}"
                )

        demand(1 <= self.num_channels <= 4096, "num_channels", "between 1 and 4096")
        demand(math.isfinite(self.depth_multiplier) and 0 < self.depth_multiplier <= 64, "depth_multiplier",
               "greater than zero (the width multiplier alpha) and at most 64")  # fmt: skip
        demand(1 <= self.min_depth <= 65536, "min_depth", "between 1 and 65536")
        demand(self.output_stride in OUTPUT_STRIDES, "output_stride",
               f"one of {', '.join(map(str, OUTPUT_STRIDES))} (no other is ever reached)")  # fmt: skip
        demand(self.hidden_act in ACTIVATIONS, "hidden_act", f"one of {', '.join(ACTIVATIONS)}")
        demand(math.isfinite(self.layer_norm_eps) and self.layer_norm_eps >= 0, "layer_norm_eps", "zero or more")
        demand(math.isfinite(self.initializer_range) and self.initializer_range >= 0, "initializer_range",
               "zero or more")  # fmt: skip
        demand(0 <= self.classifier_dropout_prob <= 1, "classifier_dropout_prob", "between 0 and 1")
        demand(self.pool_size is None or 1 <= self.pool_size <= 65536, "pool_size", "None (global) or 1 or more")
        demand(self.bottom_right_padding in (None, *BOTTOM_RIGHT_PADDINGS), "bottom_right_padding",
               f"None or one of {', '.join(BOTTOM_RIGHT_PADDINGS)}")  # fmt: skip
        demand(self.problem_type in (None, *PROBLEM_TYPES), "problem_type", f"one of {', '.join(PROBLEM_TYPES)}")
        demand(self.num_labels is None or 0 <= self.num_labels <= 1_000_000, "num_labels", "between 0 and 1000000")
        is_single = self.problem_type == "single_label_classification"
        demand(not (is_single and self.num_labels == 1), "problem_type", "regression where num_labels is 1")
        sizes = [self.image_size] if isinstance(self.image_size, int) else list(self.image_size)
        is_size = all(isinstance(size, int) and size > 0 for size in sizes)
        demand(is_size and len(sizes) in (1, 2), "image_size", "one or two positive integers")

    def _settle_labels(self) -> None:
        names = self.id2label
        if names is not None:
            names = dict(sorted(_integer_keys(type(self).__name__, names).items()))
            if self.num_labels is not None and self.num_labels != len(names):
                names = None  # as in transformers, an explicit count wins over names that do not fit it
        if names is None:
            count = 2 if self.num_labels is None else self.num_labels
            names = {index: f"LABEL_{index}" for index in range(count)}
            object.__setattr__(self, "label2id", None)
        if list(names) != list(range(len(names))):
            raise ConfigError(
                f"{type(self).__name__}: expected id2label to number its {len(names)} classes from 0 without gaps, "
                f"got the keys {list(names)[:5]}"
            )
        object.__setattr__(self, "id2label", names)
        object.__setattr__(self, "num_labels", len(names))
        if self.label2id is None:
            object.__setattr__(self, "label2id", {name: index for index, name in names.items()})


@_as_in_transformers
@dataclass(frozen=True, eq=True, kw_only=True, repr=False)
class MobileNetV1Config(MobileNetConfig):
    """transformers' `MobileNetV1Config`, and `output_stride`, `pool_size`, `bottom_right_padding`, which it lacks."""

    model_type: ClassVar[str] = "mobilenet_v1"
    __hash__ = None

    def to_dict(self) -> dict[str, Any]:
        """Return what `config.json` holds."""
        values = super().to_dict()
        if self.output_stride == 32:
            del values["output_stride"]
        return values


@_as_in_transformers
@dataclass(frozen=True, eq=True, kw_only=True, repr=False)
class MobileNetV2Config(MobileNetConfig):
    """transformers' `MobileNetV2Config`, and `pool_size` and `bottom_right_padding`, which it lacks."""

    model_type: ClassVar[str] = "mobilenet_v2"
    __hash__ = None

    depth_divisible_by: int = 8
    expand_ratio: float = 6.0
    first_layer_is_expansion: bool = True
    finegrained_output: bool = True
    classifier_dropout_prob: float = 0.8
    semantic_loss_ignore_index: int = 255

    def _check_values(self) -> None:
        super()._check_values()
        for name, value, limit in (
            ("depth_divisible_by", self.depth_divisible_by, 65536),
            ("expand_ratio", self.expand_ratio, 64),
        ):
            if not (math.isfinite(value) and 0 < value <= limit):
                raise ConfigError(
                    f"{type(self).__name__}: expected {name} to be greater than zero and at most {limit}, got {value!r}"
                )


Config: TypeAlias = MobileNetV1Config | MobileNetV2Config


def config_from_dict(values: Mapping[str, Any], **overrides: Any) -> Config:
    """Build the config that the `model_type` of a `config.json` names."""
    model_type = values.get("model_type") if isinstance(values, Mapping) else None
    for cls in (MobileNetV1Config, MobileNetV2Config):
        if str(model_type) == cls.model_type:
            return cls.from_dict(values, **overrides)
    raise ConfigError(f"config: expected model_type mobilenet_v1 or mobilenet_v2, got {model_type!r}")


def _integer_keys(where: str, names: object) -> dict[int, str]:
    if not isinstance(names, Mapping) or not all(map(is_text, names.values())):
        raise ConfigError(f"{where}: expected id2label to map class numbers to names in UTF-8, got {str(names)[:80]}")
    try:
        return {int(key): name for key, name in names.items()}
    except (TypeError, ValueError):
        found = str(list(names)[:3])
        raise ConfigError(f"{where}: expected the keys of id2label to be class numbers, got {found}") from None
