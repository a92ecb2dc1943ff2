"""What a caller asks of a loader: each of transformers' arguments is obeyed, left aside where it cannot matter, or
refused by its name.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minimobile.arguments import read_flag
from minimobile.errors import InputError
from minimobile.networks.config import Config
from minimobile.networks.dtypes import name_dtype
from minimobile.storage.hub import HubOptions, part_source
from minimobile.storage.loader_arguments import part_request

_SAVING: Mapping[str, tuple[tuple[object, ...], str]] = {
    "safe_serialization": ((None, True), "expected True; weights are written as safetensors alone"),
    "push_to_hub": ((None, False), "expected False; upload the directory with huggingface_hub"),
    "state_dict": ((None,), "expected None; load the model with them first"),
    "variant": ((None,), "expected None; rename the file"),
    "is_main_process": ((None, True), "expected True; a model runs in one process"),
}
_SAVING_LEFT_ASIDE = frozenset({  # a MobileNet has 30 MB, and is one shard whatever the limit is that anybody sets
    "max_shard_size", "token", "save_peft_format", "save_original_format", "distributed_checkpoint", "save_function",
})  # fmt: skip
_HALVES = ("float16", "half", "bfloat16")


@dataclass(frozen=True)
class LoadRequest:
    """The arguments of a loader, sorted.

    `config` stands in for the source's own, `fields` change single values of it. `state_dict` holds weights that stand
    in for the source's. `dtype` is "float32" or "float64".
    """

    source: str | Path | None
    config: Config | Mapping[str, Any] | str | Path | None
    fields: Mapping[str, Any]
    hub: HubOptions
    dtype: str
    state_dict: Mapping[str, Any] | None
    ignore_mismatched_sizes: bool
    output_loading_info: bool


def read_request(
    source: str | Path | None,
    config: Config | Mapping[str, Any] | str | Path | None,
    dtype: object,
    given: Mapping[str, Any],
) -> LoadRequest:
    """Sort what a loader was given. Raises InputError for what has no meaning here, with the way out.

    float16 and bfloat16 are computed in float32, with a warning.
    """
    source, rest = part_source(source, given)
    old = rest.pop("torch_dtype", None)
    flags = {name: rest.pop(name, None) or False for name in ("ignore_mismatched_sizes", "output_loading_info")}
    for name, flag in flags.items():
        read_flag(flag, name)
    state_dict = rest.pop("state_dict", None)
    if state_dict is not None and not isinstance(state_dict, Mapping):
        raise InputError(f"state_dict: expected arrays by their names, got a {type(state_dict).__name__}")
    hub, fields = part_request(rest)
    return LoadRequest(source, config, fields, hub, settle_dtype(dtype if old is None else old), state_dict, **flags)


def check_save_options(given: Mapping[str, Any]) -> None:
    """Raise InputError for what transformers' `save_pretrained` takes and would write other files here."""
    for name, value in given.items():
        if name in _SAVING:
            harmless, sentence = _SAVING[name]
            if not any(value is each for each in harmless):
                raise InputError(f"{name}: {sentence}, got {str(value)[:80]!r}")
        elif name not in _SAVING_LEFT_ASIDE:
            raise InputError(f"save_pretrained: there is no argument {name!r}")


def settle_dtype(dtype: object) -> str:
    """Return "float32" or "float64" of what transformers takes as `dtype`: a name, torch's or NumPy's type, "auto".

    float16 and bfloat16 become float32, with a warning; other names come back as they are.
    """
    name = "float32" if dtype is None else name_dtype(dtype)
    if name == "auto":
        return "float32"
    if name in _HALVES:
        warnings.warn(
            f"dtype {name}: computed in float32, which holds each {name} exactly and is what the engine computes in",
            stacklevel=4,
        )
        return "float32"
    return {"float": "float32", "double": "float64"}.get(name, name)
