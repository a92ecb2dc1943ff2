"""Where a source is: a local path, or a repository of the Hugging Face hub, fetched into the hub's own cache.

The extra `hub` (huggingface_hub) is imported only for a hub id. HF_ENDPOINT and HF_HUB_OFFLINE count when called.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from minimobile.errors import FormatError, MinimobileError, MissingError, UnavailableError, UnreachableError
from minimobile.formats.huggingface import CONFIG, PROCESSOR, WEIGHTS
from minimobile.formats.strict_json import read_json_object
from minimobile.formats.tensorflow.tensor_bundle import INDEX

TIMEOUT = 10.0  # seconds that the hub has for an answer
WAYS_OUT = "use a local directory, or try 'minimobile demo', which needs no network"
_HUB_ID = re.compile(r"(?!.*(--|\.\.))(?=.{3,96}$)[A-Za-z0-9][\w.-]*(?<![.-])/[A-Za-z0-9][\w.-]*(?<![.-])", re.ASCII)
_FILE_ENDING = re.compile(
    r"\.(h5|hdf5|keras|safetensors|bin|pt|pth|json|tflite|pb|ckpt|index|npz|onnx|zip|txt)$", re.IGNORECASE
)


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


def locate_checkpoint(source: str | Path, *, revision: str | None = None, cache_dir: str | Path | None = None) -> Path:
    """Return the local path of a checkpoint: `source` itself where it exists, else the hub's files in the cache.

    Of a hub repository, config.json, preprocessor_config.json and the first known form of the weights (all shards) are
    fetched. Raises FormatError where there is no such path, repository, revision or file, UnavailableError without the
    extra or the network.
    """
    local = _find_local(source)
    if local is not None:
        return local
    config = _fetch(str(source), (CONFIG,), revision, cache_dir)
    commit = config.parent.name  # one revision for all files, even if somebody pushes in between
    weights = _fetch(str(source), WEIGHTS, commit, cache_dir)
    if weights.name.endswith(".index.json"):
        shards = read_json_object(weights).get("weight_map")
        names = sorted(set(map(str, shards.values()))) if isinstance(shards, dict) else []
        for name in names:
            if re.fullmatch(r"[\w.-]+\.(safetensors|bin)", name):  # any other name is refused by the reader
                _fetch(str(source), (name,), commit, cache_dir)
    _fetch_optional(str(source), PROCESSOR, commit, cache_dir)
    return config.parent


def locate(
    source: str | Path,
    filenames: Sequence[str],
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
) -> Path:
    """Return the local path of the first of `filenames` that a directory or hub repository has.

    Errors are those of `locate_checkpoint`; where `source` is a file, it must have one of the names.
    """
    local = _find_local(source)
    if local is None:
        return _fetch(str(source), filenames, revision, cache_dir)
    candidates = [local / name for name in filenames] if local.is_dir() else [local] * (local.name in filenames)
    for path in candidates:
        if path.exists():
            return path
    raise MissingError(f"{local}: expected {' or '.join(filenames)} there, found none")


def _find_local(source: str | Path) -> Path | None:
    """Return the existing path that `source` means, None for a hub id; raise FormatError for neither."""
    path = Path(source).expanduser()
    try:
        if path.exists() or path.with_name(f"{path.name}{INDEX}").is_file():  # "x.ckpt" stands for several files
            return path
    except (OSError, ValueError) as error:  # a name too long, or with a NUL in it
        raise MissingError(f"{str(source)[:200]!r}: no such file or directory ({error})") from None
    if is_hub_id(source):
        return None
    hint = "" if "/" in str(source) else "; an id of the hub has the form owner/name"
    raise MissingError(f"{source}: no such file or directory{hint}")


def _fetch(repo: str, names: Sequence[str], revision: str | None, cache_dir: str | Path | None) -> Path:
    hub = _import_hub(repo)
    endpoint = os.environ.get("HF_ENDPOINT") or hub.constants.ENDPOINT
    is_offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")
    reason: Exception | None = None
    for name in names:
        cached = hub.try_to_load_from_cache(repo, name, cache_dir=cache_dir, revision=revision)
        is_settled = revision is not None and re.fullmatch(r"[0-9a-f]{40}", revision) is not None
        if isinstance(cached, str) and (is_settled or is_offline or reason is not None):
            return Path(cached)
        if is_offline or reason is not None:
            continue
        try:
            found = _download(hub, repo, name, revision, cache_dir, endpoint)
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
        raise UnreachableError(
            f"{repo}: {wanted} is not in the cache of the hub, and HF_HUB_OFFLINE forbids to fetch it; unset that, "
            f"{WAYS_OUT}"
        )
    if reason is not None:
        text = " ".join(str(reason).split())[:200]
        raise UnreachableError(
            f"{repo}: {wanted} is not in the cache of the hub, and {endpoint} cannot be reached "
            f"({type(reason).__name__}: {text}); {WAYS_OUT}"
        ) from reason
    raise MissingError(f"{repo}: expected {wanted} in this repository of {endpoint}, found none; {WAYS_OUT}")


def _download(
    hub: ModuleType, repo: str, name: str, revision: str | None, cache_dir: str | Path | None, endpoint: str
) -> Path | None:
    """Fetch one file into the cache; None where the repository has none of that name."""
    errors = hub.utils
    try:
        # Asked first, because hf_hub_download repeats a failing question for a minute and longer.
        url = hub.hf_hub_url(repo, name, revision=revision, endpoint=endpoint)
        hub.get_hf_file_metadata(url, timeout=TIMEOUT)
        with _progress_on_terminals_only(hub):
            path = hub.hf_hub_download(
                repo, name, revision=revision, cache_dir=cache_dir, endpoint=endpoint, etag_timeout=TIMEOUT
            )
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
        raise MissingError(f"{repo}: no revision {revision!r} of this repository on {endpoint}") from None
    except errors.HFValidationError as error:
        raise MissingError(f"{repo}: no such file or directory, and no valid hub id ({error})") from None


def _fetch_optional(repo: str, name: str, revision: str, cache_dir: str | Path | None) -> None:
    try:
        _fetch(repo, (name,), revision, cache_dir)
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
