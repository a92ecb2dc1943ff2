"""Weights in several files: put together as their index says, which is not trusted (H11)."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import assert_refused, shard, tiny_checkpoint

from minimobile import formats
from minimobile.errors import FormatError
from minimobile.formats import safetensors_file


def test_shards_are_put_together(tmp_path: Path) -> None:
    shard(tmp_path)
    read = formats.read(tmp_path)
    for name, values in tiny_checkpoint().weights.items():
        assert np.array_equal(read.weights[name], values)


def test_shards_of_pickles_are_put_together(tmp_path: Path) -> None:
    from torch_files import DATA, GOOD, VALUES, zipped

    (tmp_path / "config.json").write_text('{"model_type": "mobilenet_v1"}')
    (tmp_path / "pytorch_model-00001-of-00001.bin").write_bytes(zipped(GOOD, {"0": DATA}))
    index = {"weight_map": {"a.weight": "pytorch_model-00001-of-00001.bin"}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    read = formats.read(tmp_path)
    assert np.array_equal(read.weights["mobilenet_v1.a.weight"], VALUES.reshape(2, 3))
    assert read.provenance == {
        "format": "huggingface",
        "source": tmp_path.name,
        "weights": "pytorch_model.bin.index.json",
    }


@pytest.mark.skipif(os.name != "posix", reason="symbolic links need rights on Windows")
def test_h11_shards_that_are_links_are_read_in_the_hub_cache_alone(tmp_path: Path) -> None:
    for folder, is_read in (("repository/snapshots/1234abcd", True), ("elsewhere/copies/1234abcd", False)):
        snapshot, blobs = tmp_path / folder, (tmp_path / folder).parents[1] / "blobs"
        shard(snapshot)
        blobs.mkdir()
        for item in list(snapshot.iterdir()):
            shutil.move(item, blobs / item.name)
            item.symlink_to(Path("..") / ".." / "blobs" / item.name)
        if is_read:
            assert len(formats.read(snapshot).weights) == 4
        else:
            with pytest.raises(FormatError, match=r"weight_map: expected model-00001.* found a link"):
                formats.read(snapshot)


NAME = "classifier.bias"
H11: dict[str, tuple[Any, str]] = {
    "parent": ("../x.safetensors", "plain name"),
    "absolute": ("/etc/passwd", "plain name"),
    "absolute-with-ending": ("/etc/passwd.safetensors", "plain name"),
    "drive": ("C:\\x.safetensors", "plain name"),
    "drive-without-slash": ("C:x.safetensors", "plain name"),
    "server": ("\\\\host\\s.safetensors", "plain name"),
    "url": ("http://x.safetensors", "plain name"),
    "nul": ("x\0.safetensors", "plain name"),
    "number": (3, "plain name"),
    "list": ([], "plain name"),
    "itself": ("model.safetensors.index.json", "plain name"),
    "config": ("config.json", "plain name"),
    "missing-shard": ("model-00003-of-00002.safetensors", "no such file"),
    "other-shard": ("model-00002-of-00002.safetensors", "a difference in classifier.bias"),
}


@pytest.mark.parametrize("case", H11)
def test_h11_a_hostile_index_is_refused(tmp_path: Path, case: str) -> None:
    place, match = H11[case]
    shard(tmp_path, {NAME: place})
    with pytest.raises(FormatError, match=match) as caught:
        formats.read(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_h11_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    shard(tmp_path)
    path = tmp_path / "model-00002-of-00002.safetensors"
    weights = safetensors_file.read_tensors(path)
    safetensors_file.write_tensors(path, {**weights, NAME: np.ones(3, np.float32)})
    with pytest.raises(FormatError, match=r"a difference in classifier\.bias"):
        formats.read(tmp_path)


@pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": 3}', '{"weight_map": {}}', "{", "", "\x00"])
def test_h11_a_damaged_index_is_refused(tmp_path: Path, content: str) -> None:
    index = shard(tmp_path)
    index.write_text(content)
    assert_refused(lambda _: formats.read(tmp_path), index, "expected")
