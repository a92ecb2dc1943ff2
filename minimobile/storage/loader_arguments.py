"""The arguments that transformers' loaders take: obeyed, left aside where they cannot matter, or refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minimobile.errors import InputError
from minimobile.storage.hub import HubOptions, part_hub_options

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
