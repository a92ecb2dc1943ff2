"""Configs in files: what transformers' configs read and write themselves, for the classes in `config.py`."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from minimobile.arguments import read_flag
from minimobile.errors import ConfigError
from minimobile.storage.directories import make_directory
from minimobile.storage.files import user_path, write_whole_bytes
from minimobile.storage.hub import CONFIG, HubOptions, is_hub_id, locate, part_source
from minimobile.storage.loader_arguments import part_request
from minimobile.storage.strict_json import read_json_object

FilesT = TypeVar("FilesT", bound="ConfigFiles")


class ConfigFiles:
    """The half of a config that knows files."""

    model_type: ClassVar[str]

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return what `config.json` holds."""

    @abstractmethod
    def to_diff_dict(self) -> dict[str, Any]:
        """Return what `config.json` holds, without the defaults of every model's config."""

    @classmethod
    @abstractmethod
    def from_dict(cls: type[FilesT], values: Mapping[str, Any], **overrides: Any) -> FilesT:
        """Build a config from the content of a `config.json`."""

    @classmethod
    def from_pretrained(cls: type[FilesT], pretrained_model_name_or_path: str | Path, **overrides: Any) -> FilesT:
        """Read the config of a directory, a hub id or a JSON file; `overrides` change fields of it.

        The arguments of the hub (`revision`, `cache_dir`, `token`, `subfolder`, `local_files_only`) are those of the
        models. Raises MissingError for what is not there, FormatError for what cannot be read, ConfigError for the
        config of another class or a field that has no meaning.
        """
        source, rest = part_source(pretrained_model_name_or_path, overrides)
        hub, fields = part_request(rest)
        values = read_json_object(_locate(source, hub))
        found = values.get("model_type", cls.model_type)
        if found != cls.model_type:
            raise ConfigError(
                f"{source}: expected the config of a {cls.model_type}, found that of a {str(found)[:80]}; "
                "AutoConfig.from_pretrained reads either"
            )
        return cls.from_dict(values, **fields)

    @classmethod
    def from_json_file(cls: type[FilesT], json_file: str | Path) -> FilesT:
        """Read a config from a JSON file; raises FormatError or ConfigError for one that is damaged or of others."""
        return cls.from_dict(read_json_object(user_path(json_file, "json_file")))

    def to_json_string(self, use_diff: bool = True) -> str:
        """Return the config as sorted JSON text; `use_diff` leaves out what `to_diff_dict` does."""
        values = self.to_diff_dict() if read_flag(use_diff, "use_diff") else self.to_dict()
        return json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"

    def to_json_file(self, json_file_path: str | Path, use_diff: bool = True) -> None:
        """Write `to_json_string` to a file, whole or not at all; raises FormatError where that cannot be."""
        write_whole_bytes(user_path(json_file_path, "json_file_path"), self.to_json_string(use_diff).encode())

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write `config.json` into a directory, which is made where it is missing."""
        self.to_json_file(make_directory(user_path(save_directory, "save_directory")) / CONFIG)


def _locate(source: Any, hub: HubOptions) -> Path:
    """Return the JSON file of a config: that file itself, or the one of a directory or a repository."""
    if str(source).endswith(".json"):
        return user_path(source, "source")
    if not is_hub_id(source) and user_path(source, "source").is_file():
        raise ConfigError(
            f"{source}: expected a directory with {CONFIG}, a hub id or a JSON file; AutoConfig.from_pretrained reads "
            "the config of any other file"
        )
    return locate(source, [CONFIG], hub)
