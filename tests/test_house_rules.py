"""The house rules: this tree keeps them, and every fault planted in a small one is found in its line."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import pytest

from tools import house_rules

HEAD = '"""A module."""\n'


Check = Callable[[dict[str, str]], list[str]]


@pytest.fixture
def check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Check:
    """Write the given files into an empty tree, run the tool on it, and return the lines it prints but the last."""

    def run(files: dict[str, str]) -> list[str]:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        code = house_rules.main([str(tmp_path)])
        lines = capsys.readouterr().out.splitlines()
        assert code == (1 if len(lines) > 1 else 0)
        return lines[:-1]

    return run


def test_this_tree_keeps_the_rules(capsys: pytest.CaptureFixture[str]) -> None:
    gc.disable()  # no node of a syntax tree is in a circle, and to look for one takes as long as all the rules
    try:
        code = house_rules.main([])
    finally:
        gc.enable()
    assert code == 0, capsys.readouterr().out


def test_a_clean_tree_has_no_faults(check: Check) -> None:
    assert check({
        "minimobile/errors.py": HEAD,
        "minimobile/networks/graph.py": HEAD + "from minimobile.errors import X\nimport numpy\n",
        "kernels/minimobile_kernels/machine.py": HEAD + "from minimobile_kernels import simd\n",
        "kernels/minimobile_kernels/simd.py": HEAD + "import llvmlite.ir\nfrom numba import types\n",
    }) == []  # fmt: skip


def test_a_worktree_may_say_where_its_repository_is(check: Check) -> None:
    assert check({".git": f"gitdir: {'/ho' + 'me/'}somebody/models/.git/worktrees/mine\n"}) == []


PLANTED = {
    "upwards": ("from minimobile.execution.engine import run\n", "stands above it"),
    "upwards inside a function": ("def _f():\n    import minimobile.cli.demo\n", "stands above it"),
    "upwards by a relative import": ("from ..execution.engine import run\n", "stands above it"),
    "upwards for types only": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from minimobile.execution.engine import run\n",
        "stands above it",
    ),
    "a framework": ("import tensorflow_probability\n", "may not import tensorflow_probability"),
    "torch at the top": ("import torch\n", "may import torch only inside a function"),
    "too long": ("# filling\n" * 400, "401 lines"),
    "no docstring": ("def find() -> None:\n    return None\n", "find is public and has no docstring"),
    "no docstring on a method": ("class _A: pass\nclass B:\n    def find(self): return 1\n", "find is public"),
    "argument described that is none": (
        'def find(x):\n    """Find.\n\n    Args:\n        x: a number.\n        y: gone.\n    """\n',
        "describes y, which is no argument",
    ),
    "argument left out": (
        'def find(x, *, size=1):\n    """Find.\n\n    Args:\n        x: a number,\n            size: more.\n    """\n',
        "leave out size",
    ),
    "argument described of an inner function": (
        'def _f():\n    def find(x):\n        """Find.\n\n        Args:\n            y: gone.\n'
        '            x: a number.\n        """\n    return find\n',
        "find: the docstring describes y",
    ),
    "call written with an argument too many": (
        'def find(x, y):\n    """find(x, y, z) -> x + y."""\n',
        "find: the docstring writes find(x, y, z), not (x, y)",
    ),
    "call written of an inner function that is returned": (
        'def _make():\n    """Return a filter.\n\n    filter(x,\n    weight, bias)\n\n    filters.\n    """\n\n'
        "    def inner(typing_context, x, weight): return 1\n    return inner\n",
        "_make: the docstring writes filter(x, weight, bias), not (x, weight)",
    ),
    "shape of no argument": (
        'def find(x, w):\n    """Find.\n\n    Shapes: x (N, C), weight (C) -> (N).\n    """\n',
        "Shapes names weight",
    ),
    "print": ("def _f():\n    print(1)\n", "print: the library never does"),
    "fastmath": ("_F = dict(nogil=True, fastmath=True)\n", "fastmath is True"),
    "fastmath in a table": ("_F = {'fastmath': {'contract'}}\n", "fastmath is {'contract'}"),
    "Image.open": ("import PIL\n_I = PIL.Image.open('x')\n", "Image.open: only minimobile.imaging.pictures may"),
    "h5py.File": ("def _f(h5py):\n    return h5py.File('x')\n", "h5py.File: only"),
    "pickle.load": ("import pickle\n_P = pickle.load(None)\n", "pickle.load: the library never does"),
    "from pickle": ("from pickle import Unpickler\n", "pickle runs what a file says"),
    "a subclass of Unpickler": ("import pickle\nclass _U(pickle.Unpickler): pass\n", "pickle.Unpickler"),
    "allow_pickle": ("import numpy as np\n_A = np.load('x', allow_pickle=True)\n", "allow_pickle is True"),
    "np.exp": ("import numpy as np\n_E = np.exp(1.0)\n", "np.exp: only minimobile.models.losses may"),
    "eval": ("_E = eval('1')\n", "eval: the library never does"),
    "a path": (f"_P = '{'/ho' + 'me/'}somebody/models'\n", "names a path of a machine"),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found_in_its_line(check: Check, fault: str) -> None:
    text, sentence = PLANTED[fault]
    lines = check({
        "minimobile/networks/graph.py": HEAD + text,
        "minimobile/execution/engine.py": HEAD,
        "minimobile/cli/demo.py": HEAD,
    })  # fmt: skip
    assert len(lines) == 1, lines
    assert sentence in lines[0]
    assert lines[0].startswith("minimobile/networks/graph.py:")


def test_a_circle_within_a_package_is_found_once(check: Check) -> None:
    lines = check({
        "minimobile/formats/keras/keras.py": HEAD + "from minimobile.formats import hdf5\n",
        "minimobile/formats/hdf5.py": HEAD + "\nfrom minimobile.formats.keras.keras import read\n",
    })  # fmt: skip
    assert len(lines) == 1
    assert "imports go in a circle: minimobile.formats" in lines[0]


def test_a_module_beside_the_packages_is_found(check: Check) -> None:
    assert check({"minimobile/utils.py": HEAD}) == [
        "minimobile/utils.py:1: minimobile.utils has no place in PACKAGES; give it one"
    ]


def test_a_definition_that_leans_on_what_it_defines_is_found(check: Check) -> None:
    lines = check({
        "kernels/minimobile_kernels/reference.py": HEAD + "from minimobile_kernels.pooling import pool\n",
        "kernels/minimobile_kernels/pooling.py": HEAD,
    })  # fmt: skip
    assert [line.partition(": ")[2] for line in lines] == [
        "minimobile_kernels.reference is a definition and imports minimobile_kernels.pooling, which is none"
    ]


def test_a_package_that_is_not_installed_is_found(check: Check) -> None:
    setup = "[options]\npackages =\n    minimobile.formats\ninstall_requires =\n    numpy\n"
    files = {"setup.cfg": setup, "minimobile/formats/__init__.py": HEAD, "minimobile/costs/__init__.py": HEAD}
    assert check(files) == [
        "setup.cfg:1: minimobile.costs is a folder of modules and missing under packages: it would not be installed"
    ]


def test_a_long_script_of_a_page_is_found(check: Check) -> None:
    files = {f"minimobile/explorer/page/{name}.js": "//\n" * lines for name, lines in (("short", 400), ("long", 401))}
    assert check(files) == ["minimobile/explorer/page/long.js:1: 401 lines; a script has at most 400"]


def test_kernels_know_neither_models_nor_other_packages(check: Check) -> None:
    lines = check({
        "kernels/minimobile_kernels/pooling.py": HEAD + "import h5py\nimport minimobile.networks.graph\n",
        "minimobile/networks/graph.py": HEAD,
    })  # fmt: skip
    assert [line.partition(": ")[2] for line in lines] == [
        "minimobile_kernels.pooling may not import h5py; see THIRD_PARTY",
        "minimobile_kernels.pooling imports minimobile.networks.graph, which stands above it",
    ]


def test_a_ladder_of_operations_is_found(check: Check) -> None:
    text = HEAD + 'CONVOLUTIONS = ()\n\n\ndef _f(node, op):\n    if node.op == "add":\n        return node.op == op\n'
    text += "    return node.op in CONVOLUTIONS\n"
    lines = check({
        "minimobile/execution/program.py": text,
        "minimobile/formats/graph_def.py": text,
        "setup.cfg": "[options]\npackages =\n    minimobile.execution\n    minimobile.formats\n",
    })  # fmt: skip
    found = [line for line in lines if "ask the operation's table" in line]
    assert [line.partition(": ")[0] for line in found] == [f"minimobile/execution/program.py:{n}" for n in (6, 8)]


def test_numba_is_configured_in_one_place(check: Check) -> None:
    text = HEAD + "import numba\n\n\n@numba.njit\ndef _f():\n    return 1\n_G = numba.njit(nogil=True)(_f)\n"
    lines = check({
        "kernels/minimobile_kernels/pooling.py": text,
        "kernels/minimobile_kernels/_jit.py": text,
    })  # fmt: skip
    assert len(lines) == 2
    assert {line.split(":")[1] for line in lines} == {"5", "8"}
    assert all("numba.njit: only minimobile_kernels._jit may" in line for line in lines)


def test_a_path_in_a_document_is_found_and_an_address_is_not(check: Check) -> None:
    lines = check({"README.md": f"see https://example.org/home/x\nput it into {'/Us' + 'ers/'}me\n"})
    assert [line.split(":")[1] for line in lines] == ["2"]
