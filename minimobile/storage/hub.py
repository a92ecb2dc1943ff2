"""Where a source is: a local path, or a repository of the Hugging Face hub, fetched into the hub's own cache.

The extra `hub` (huggingface_hub) is imported only for a hub id. HF_ENDPOINT and HF_HUB_OFFLINE count when called.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

from minimobile.errors import FormatError, InputError, MinimobileError, MissingError, UnavailableError, UnreachableError
from minimobile.storage.directories import refuse_begun
from minimobile.storage.files import user_path
from minimobile.storage.strict_json import read_json_object

CONFIG = "config.json"
PROCESSOR = "preprocessor_config.json"
WEIGHTS = (  # in the order of preference
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
INDEX = ".index"
"""A TensorFlow checkpoint is called by what the names of its files begin with; this one it has always."""
TIMEOUT = 10.0  # seconds that the hub has for an answer
WAYS_OUT = "use a local directory, or try 'minimobile demo', which needs no network"
_HUB_ID = re.compile(r"(?!.*(--|\.\.))(?=.{3,96}$)[A-Za-z0-9][\w.-]*(?<![.-])/[A-Za-z0-9][\w.-]*(?<![.-])", re.ASCII)
_FILE_ENDING = re.compile(
    r"\.(h5|hdf5|keras|safetensors|bin|pt|pt2|pth|json|tflite|pb|ckpt|index|npz|onnx|zip|txt)$", re.IGNORECASE
)


@dataclass(frozen=True)
class HubOptions:
    """What callers say of the hub, by transformers' names. Raises InputError for a value of the wrong kind.

    `revision` is a branch, a tag or a commit; `cache_dir` stands in for the hub's own cache; `token` is one of the hub,
    or True for the one of its login; `local_files_only` never asks the network, `force_download` always does.
    `subfolder` is one of the repository, or of a local directory.
    """

    revision: str | None = None
    cache_dir: str | Path | None = None
    token: str | bool | None = None
    local_files_only: bool = False
    force_download: bool = False
    subfolder: str = ""

    def __post_init__(self) -> None:
        kinds: dict[str, tuple[tuple[type, ...], str]] = {
            "revision": ((str,), "a branch, a tag or a commit"),
            "cache_dir": ((str, Path), "a folder"),
            "token": ((str, bool), "a token of the hub, True or False"),
            "local_files_only": ((bool,), "True or False"),
            "force_download": ((bool,), "True or False"),
            "subfolder": ((str,), "a folder within the source"),
        }
        for field in fields(self):
            value, (types, expected) = getattr(self, field.name), kinds[field.name]
            if value is None:
                object.__setattr__(self, field.name, field.default)
            elif not isinstance(value, types):
                raise InputError(f"{field.name}: expected {expected}, got {value!r}")
        parts = PurePosixPath(self.subfolder).parts
        if ".." in parts or PurePosixPath(self.subfolder).is_absolute() or "\\" in self.subfolder:
            raise InputError(f"subfolder: expected a folder within the source, got {self.subfolder!r}")

    @property
    def depth(self) -> int:
        """How many folders lie between the repository and its files."""
        return len(PurePosixPath(self.subfolder).parts)


NO_OPTIONS = HubOptions()


def part_hub_options(given: Mapping[str, Any]) -> tuple[HubOptions, dict[str, Any]]:
    """Return what concerns the hub among arguments, and the others. `use_auth_token` is the older name of `token`."""
    rest = {name: value for name, value in given.items() if name not in ("resume_download", "mirror", "user_agent")}
    if rest.pop("proxies", None):
        raise InputError("proxies: expected None, got others; set the environment's HTTPS_PROXY instead")
    old = rest.pop("use_auth_token", None)
    found = {field.name: rest.pop(field.name) for field in fields(HubOptions) if field.name in rest}
    return HubOptions(**{"token": old, **found}), rest


def part_source(source: str | Path | None, given: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the source, which users of transformers may call `pretrained_model_name_or_path`, and other arguments."""
    rest = dict(given)
    named = rest.pop("pretrained_model_name_or_path", None)
    if source is not None and named is not None:
        raise InputError("pretrained_model_name_or_path: expected one source, got two; it is the first argument")
    return named if source is None else source, rest


def is_hub_id(source: str | Path) -> bool:
    """Say whether `source` has the form of a hub id, `owner/name`, rather than of a path.

    >>> is_hub_id("google/mobilenet_v2_1.0_224"), is_hub_id("./google/net"), is_hub_id("models/net.h5")
    (True, False, False)
    """
    return isinstance(source, str) and bool(_HUB_ID.fullmatch(source)) and not has_file_ending(source)


def has_file_ending(name: str) -> bool:
    """Say whether a name ends as weights files do: the dot of `mobilenet_v2_1.0_224` begins no ending.

    >>> has_file_ending("net.onnx"), has_file_ending("mobilenet_v2_1.0_224")
    (True, False)
    """
    return bool(_FILE_ENDING.search(name))


def locate_checkpoint(source: str | Path, options: HubOptions = NO_OPTIONS) -> Path:
    """Return the local path of a checkpoint: `source` itself where it exists, else the hub's files in the cache.

    Of a hub repository, config.json, preprocessor_config.json and the first known form of the weights (all shards) are
    fetched. Raises FormatError where there is no such path, repository, revision or file, UnavailableError without the
    extra or the network.
    """
    local = _find_local(source, options)
    if local is not None:
        return local
    config = _fetch(str(source), (CONFIG,), options)
    commit = config.parents[options.depth].name  # one revision for all files, even if somebody pushes in between
    options = replace(options, revision=commit)
    weights = _fetch(str(source), WEIGHTS, options)
    if weights.name.endswith(".index.json"):
        shards = read_json_object(weights).get("weight_map")
        names = sorted(set(map(str, shards.values()))) if isinstance(shards, dict) else []
        for name in names:
            if re.fullmatch(r"[\w.-]+\.(safetensors|bin)", name):  # any other name is refused by the reader
                _fetch(str(source), (name,), options)
    _fetch_optional(str(source), PROCESSOR, options)
    return config.parent


def locate(source: str | Path, filenames: Sequence[str], options: HubOptions = NO_OPTIONS) -> Path:
    """Return the local path of the first of `filenames` that a directory or hub repository has.

    Errors are those of `locate_checkpoint`; where `source` is a file, it must have one of the names. Raises FormatError
    for a directory that is half replaced, too.
    """
    local = _find_local(source, options)
    if local is None:
        return _fetch(str(source), filenames, options)
    refuse_begun(local, CONFIG)
    candidates = [local / name for name in filenames] if local.is_dir() else [local] * (local.name in filenames)
    for path in candidates:
        if path.exists():
            return path
    raise MissingError(f"{local}: expected {' or '.join(filenames)} there, found none")


def _find_local(source: str | Path, options: HubOptions) -> Path | None:
    """Return the existing path that `source` means, None for a hub id; raise FormatError for neither."""
    path = user_path(source, "source")
    try:
        if options.subfolder and path.is_dir():
            path = path / options.subfolder
        if path.exists() or path.with_name(f"{path.name}{INDEX}").is_file():  # "x.ckpt" stands for several files
            return path
    except (OSError, ValueError) as error:  # a name too long, or with a NUL in it
        raise MissingError(f"{str(source)[:200]!r}: no such file or directory ({error})") from None
    if is_hub_id(source):
        return None
    hint = "" if "/" in str(source) else "; an id of the hub has the form owner/name"
    raise MissingError(f"{path if options.subfolder else source}: no such file or directory{hint}")


def _fetch(repo: str, names: Sequence[str], options: HubOptions) -> Path:
    hub = _import_hub(repo)
    endpoint = os.environ.get("HF_ENDPOINT") or hub.constants.ENDPOINT
    is_offline = options.local_files_only or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")
    is_settled = re.fullmatch(r"[0-9a-f]{40}", options.revision or "") is not None and not options.force_download
    reason: Exception | None = None
    for plain_name in names:
        name = f"{options.subfolder.strip('/')}/{plain_name}".lstrip("/")
        cached = hub.try_to_load_from_cache(repo, name, cache_dir=options.cache_dir, revision=options.revision)
        if isinstance(cached, str) and (is_settled or is_offline or reason is not None):
            return Path(cached)
        if is_offline or reason is not None:
            continue
        try:
            found = _download(hub, repo, name, options, endpoint)
        except MinimobileError:
            raise
        except Exception as error:  # whatever the HTTP library of the day raises when there is no network
            reason = error
            if isinstance(cached, str):
                return Path(cached)
            continue
        if found is not None:
            return found
    wanted = " or ".join(names)
    if is_offline:
        who = "local_files_only" if options.local_files_only else "HF_HUB_OFFLINE"
        raise UnreachableError(
            f"{repo}: {wanted} is not in the cache of the hub, and {who} forbids to fetch it; unset that, {WAYS_OUT}"
        )
    if reason is not None:
        text = " ".join(str(reason).split())[:200]
        raise UnreachableError(
            f"{repo}: {wanted} is not in the cache of the hub, and {endpoint} cannot be reached "
            f"({type(reason).__name__}: {text}); {WAYS_OUT}"
        ) from reason
    raise MissingError(f"{repo}: expected {wanted} in this repository of {endpoint}, found none; {WAYS_OUT}")


def _download(hub: ModuleType, repo: str, name: str, options: HubOptions, endpoint: str) -> Path | None:
    """Fetch one file into the cache; None where the repository has none of that name."""
    errors = hub.utils
    try:
        # Asked first, because hf_hub_download repeats a failing question for a minute and longer.
        url = hub.hf_hub_url(repo, name, revision=options.revision, endpoint=endpoint)
        hub.get_hf_file_metadata(url, timeout=TIMEOUT, token=options.token)
        with _progress_on_terminals_only(hub):
            path = hub.hf_hub_download(
                repo, name, revision=options.revision, cache_dir=options.cache_dir, endpoint=endpoint,
                token=options.token, etag_timeout=TIMEOUT, force_download=options.force_download,
            )  # fmt: skip
        return Path(path)
    except errors.LocalEntryNotFoundError:
        raise
    except errors.EntryNotFoundError:
        return None
    except errors.GatedRepoError:
        raise MissingError(f"{repo}: access to this repository has to be granted on {endpoint}; {WAYS_OUT}") from None
    except errors.RepositoryNotFoundError:
        raise MissingError(
            f"{repo}: no such file or directory here, and no such public repository on {endpoint}; {WAYS_OUT}"
        ) from None
    except errors.RevisionNotFoundError:
        raise MissingError(f"{repo}: no revision {options.revision!r} of this repository on {endpoint}") from None
    except errors.HFValidationError as error:
        raise MissingError(f"{repo}: no such file or directory, and no valid hub id ({error})") from None


def _fetch_optional(repo: str, name: str, options: HubOptions) -> None:
    try:
        _fetch(repo, (name,), options)
    except FormatError:
        return  # many repositories have none, and the network is complete without
    except UnavailableError as error:
        warnings.warn(f"{error}; the checkpoint is read without it", stacklevel=4)


def _import_hub(repo: str) -> ModuleType:
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.utils  # both by name, for the package itself loads its parts on first use
    except ImportError:
        raise UnreachableError(
            f"{repo}: no such file or directory here; to fetch it from the hub, pip install 'minimobile[hub]', or "
            f"{WAYS_OUT}"
        ) from None
    module: ModuleType = huggingface_hub
    return module


@contextmanager
def _progress_on_terminals_only(hub: ModuleType) -> Iterator[None]:
    are_disabled: Callable[[], bool] = hub.utils.are_progress_bars_disabled
    if are_disabled() or sys.stderr.isatty():
        yield
        return
    hub.utils.disable_progress_bars()
    try:
        yield
    finally:
        hub.utils.enable_progress_bars()
