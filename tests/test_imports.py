"""What importing and running load: no compiler where none is needed, and every public name."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import resources

import numpy as np
import pytest
from quantized_files import write_quantized
from spelling import random_weights, spell

import minimobile as mm
from minimobile.networks.build_graph import build_graph
from minimobile_kernels import elf


def test_every_public_name_is_there():
    assert all(hasattr(mm, name) for name in mm.__all__) and sorted(mm.__all__) == mm.__all__
    assert set(mm.__all__) <= set(dir(mm))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mm.nothing  # noqa: B018


def test_importing_the_package_loads_no_compiler():
    code = "import sys, minimobile; sys.exit('numba' in sys.modules or 'PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("kind", ["floats", "bytes"])
def test_a_network_runs_without_the_compiler_once_its_machine_code_is_on_disk(tmp_path, kind):
    path = tmp_path / "model.tflite"
    if kind == "bytes":
        graph = build_graph(mm.MobileNetV1Config(depth_multiplier=0.25), "MobileNetV1ForImageClassification")
        path.write_bytes(write_quantized(spell(graph, random_weights(graph), folded=True), (64, 64)).write())
    source = str(path) if kind == "bytes" else "demo:digits"
    code = (
        "import sys, numpy as np, minimobile as mm\n"
        f"model = mm.load({source!r})\n"
        "print(len(model(np.zeros((1, 3, 64, 64), 'f4')).logits), sorted({'numba', 'h5py'} & set(sys.modules)))\n"
        "print('llvmlite' in sys.modules)"
    )
    mm.load(source)(np.zeros((1, 3, 64, 64), np.float32))  # on disk from now on
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"1 []\n{not elf.is_for_this_system()}\n", done.stderr


def test_help_needs_no_compiler_and_no_framework() -> None:
    program = (
        "import sys; sys.argv = ['minimobile', '--help']; from minimobile.cli import main; main(); "
        "print(sorted({'numba', 'h5py', 'PIL', 'numpy', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_reading_a_file_needs_no_compiler() -> None:
    program = (
        "import sys; from minimobile.cli import main; assert main(['inspect', 'demo:digits']) == 0; "
        "import minimobile.models.conversion; print('numba' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_loading_a_directory_imports_no_reader_of_another_format_and_nothing_that_no_run_needs(tmp_path) -> None:
    mm.MobileNetV1Model(mm.MobileNetV1Config(depth_multiplier=0.25)).save_pretrained(tmp_path / "model")
    program = (
        "import sys, numpy, PIL.Image; theirs = set(sys.modules); "  # Pillow 10 imports tempfile
        "import minimobile as mm; mm.load(sys.argv[1]); "
        "print({name.split('.')[2] for name in sys.modules if name.startswith('minimobile.formats.')}); "
        "unused = ('minimobile.tracing', 'minimobile.costs', 'minimobile.quantized.operations'); "
        "print({name for name in sys.modules if name.startswith(unused)}); "
        "print({'concurrent.futures', 'tempfile', 'safetensors', 'statistics'} & set(sys.modules) - theirs)"
    )
    words = [sys.executable, "-c", program, str(tmp_path / "model")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    readers, *others = map(ast.literal_eval, done.stdout.replace("set()", "{}").splitlines())
    assert "huggingface" in readers and not readers & {"hdf5", "keras", "onnx", "pytorch", "tensorflow_js", "tflite"}
    assert not any(others), others


def test_a_command_loads_neither_the_compiler_nor_other_commands() -> None:
    digit = str(resources.files("minimobile.demo") / "digit_3.png")
    words = ["classify", digit, "--model", "demo:digits"]
    mm.classify(digit, "demo:digits")  # its machine code is on disk from now on
    program = (
        f"import sys; from minimobile.cli import main; assert main({words!r}) == 0; "
        "print(sorted({'numba', 'h5py', 'minimobile.cli.bench', 'minimobile.cli.explore'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]" and done.stderr == ""


def test_the_package_alone_imports_nothing_else_of_itself() -> None:
    """For a traceback is what Python prints when it is interrupted before `minimobile.__main__` has begun."""
    program = "import minimobile, sys; print([name for name in sys.modules if name.startswith('minimobile.')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
