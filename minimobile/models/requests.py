"""What a caller asks of a loader: each of transformers' arguments is obeyed, left aside where it cannot matter, or
refused by its name.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minimobile.errors import InputError
from minimobile.formats.hub import HubOptions, part_hub_options, part_source
from minimobile.networks.config import Config
from minimobile.networks.dtypes import name_dtype

_PROCESSOR_ALONE = "expected None, 'auto' or 'cpu', for the engine runs on processors alone"
_REFUSED: Mapping[str, tuple[tuple[object, ...], str]] = {  # the values that ask for nothing, and what to do instead
    "device_map": ((None, "auto", "cpu", {"": "cpu"}), _PROCESSOR_ALONE),
    "device": ((None, "cpu", -1), _PROCESSOR_ALONE),
    "quantization_config": ((None,), "expected None; quantised files run as they are, without being told"),
    "variant": ((None, ""), "expected None; name the weights file of the variant itself, with config.json beside it"),
    "from_tf": ((None, False), "expected False; the format is told by the file's content, so leave this out"),
    "from_flax": ((None, False), "expected False; weights of Flax cannot be read"),
    "gguf_file": ((None,), "expected None; GGUF holds no MobileNet"),
    "key_mapping": ((None,), "expected None; rename the keys, and pass them as state_dict"),
    "adapter_kwargs": ((None, {}), "expected None; there are no adapters"),
    "tp_plan": ((None,), "expected None; a network runs in one process"),
    "device_mesh": ((None,), "expected None; a network runs in one process"),
    "distributed_config": ((None,), "expected None; a network runs in one process"),
    "return_unused_kwargs": ((None, False), "expected False; an argument that nobody knows is refused"),
    "fusion_config": ((None,), "expected None; batch norm is folded, and bands are fused, always"),
}
_LEFT_ASIDE = frozenset({  # they choose how transformers does what is done here in one way, or what no MobileNet has
    "low_cpu_mem_usage", "trust_remote_code", "use_safetensors", "weights_only", "max_memory", "offload_folder",
    "offload_state_dict", "offload_buffers", "disable_mmap", "tqdm_class", "generation_config", "use_kernels",
    "kernel_config", "allow_all_kernels", "tp_size", "code_revision", "adapter_name", "framework", "use_fast",
    "_from_auto", "_from_pipeline", "_commit_hash", "_fast_init",
})  # fmt: skip
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
        if not isinstance(flag, bool):
            raise InputError(f"{name}: expected True or False, got {flag!r}")
    state_dict = rest.pop("state_dict", None)
    if state_dict is not None and not isinstance(state_dict, Mapping):
        raise InputError(f"state_dict: expected arrays by their names, got a {type(state_dict).__name__}")
    hub, fields = part_request(rest)
    return LoadRequest(source, config, fields, hub, settle_dtype(dtype if old is None else old), state_dict, **flags)


def part_request(given: Mapping[str, Any]) -> tuple[HubOptions, dict[str, Any]]:
    """Return what concerns the hub, and the fields of a config, among arguments; refuse what has no meaning."""
    hub, rest = part_hub_options(given)
    fields = {}
    for name, value in rest.items():
        if name in _REFUSED:
            plain = value if isinstance(value, dict | int | str | None) else str(value)  # torch.device("cpu")
            harmless, sentence = _REFUSED[name]
            if not any(plain == each and type(plain) is type(each) for each in harmless):
                raise InputError(f"{name}: {sentence}, got {str(value)[:80]!r}")
        elif name not in _LEFT_ASIDE:
            fields[name] = value
    return hub, fields


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
    name = "float32" if dtype is None or dtype == "auto" else name_dtype(dtype)
    if name in _HALVES:
        warnings.warn(
            f"dtype {name}: computed in float32, which holds each {name} exactly and is what the engine computes in",
            stacklevel=4,
        )
        return "float32"
    return {"float": "float32", "double": "float64"}.get(name, name)
