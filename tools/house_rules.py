"""Check what ruff and mypy cannot: layers, sizes, docstrings against signatures, and calls that have one home.

`python tools/house_rules.py [ROOT]` prints one line per fault, `path:line: sentence`, and ends with exit code 1 when
there is any. It reads the sources and imports none of them.
"""

from __future__ import annotations

import argparse
import ast
import configparser
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.house_docstrings import check_docstrings
from tools.house_sources import Fault, Modules, find_imports, read_modules

MAX_LINES = 400

# From the bottom up: a package may import those that stand before it, its modules each other, and none goes in circles.
PACKAGES: Mapping[str, str] = {
    "minimobile_kernels": "arrays in, arrays out",
    "minimobile.errors": "what is said to a user",
    "minimobile.arguments": "plain arguments as callers hand them in",
    "minimobile.arrays": "arrays as callers hand them in",
    "minimobile.storage": "files, directories, JSON, the hub",
    "minimobile.tables": "rows for people to read",
    "minimobile.demo": "embedded models and pictures",
    "minimobile.networks": "the papers' networks as graphs",
    "minimobile.operations": "what the nodes of a graph do",
    "minimobile.costs": "what a network costs before it runs",
    "minimobile.execution": "from a graph to a run",
    "minimobile.quantized": "networks of integers",
    "minimobile.formats": "from a file to a checkpoint and back",
    "minimobile.imaging": "from a picture to pixel values and back",
    "minimobile.tracing": "what happened inside a run",
    "minimobile.models": "what a user holds",
    "minimobile.calibration": "from a float network to one of integers",
    "minimobile.comparison": "is it the same, and is it faster",
    "minimobile.bulk": "folders of any size, in parts",
    "minimobile.explorer": "the page that shows a run",
    "minimobile": "the public names",
    "minimobile.cli": "the commands",
    "minimobile.__main__": "python -m minimobile",
}

# Definitions stand by themselves: what they define may use them, and they nothing of it.
DEFINITIONS = ("geometry", "elementwise", "reference", "reference_detection", "reference_statistics",
               "quantized.reference", "quantized.reference_activations", "quantized.reference_maps")  # fmt: skip

# What may be imported from outside, by the longest name that matches: at the top of a module, and inside functions.
THIRD_PARTY: Mapping[str, tuple[set[str], set[str]]] = {
    "minimobile_kernels": ({"numpy", "numba", "llvmlite"}, set()),
    "minimobile": ({"numpy", "PIL"}, {"torch", "tensorflow", "jax"}),
    "minimobile.comparison.rivals": ({"numpy"}, {"torch", "onnxruntime", "openvino", "ai_edge_litert"}),
    "minimobile.comparison.peers": (
        {"numpy"},
        {"torch", "transformers", "tensorflow", "keras", "ai_edge_litert", "onnxruntime", "openvino"},
    ),
    "minimobile.comparison.torch_modules": ({"numpy"}, {"torch"}),
    "minimobile.bulk": ({"numpy", "PIL"}, {"pyarrow", "fsspec", "ray"}),
    "minimobile.formats": ({"numpy", "h5py", "safetensors"}, set()),
    "minimobile.storage": (set(), {"huggingface_hub"}),
    "minimobile.cli": ({"typer"}, {"numpy", "PIL", "rich"}),
}

# What has one home, or none: a stranger's file passes through the checks that live there.
HOMES: Mapping[str, set[str]] = {
    "Image.open": {"minimobile.imaging.pictures"},
    "h5py.File": {"minimobile.formats.guarded_hdf5", "minimobile.formats.hdf5_child.serve"},
    "numba.jit": {"minimobile_kernels._jit"},
    "numba.njit": {"minimobile_kernels._jit"},
    "pickle.load": set(),
    "pickle.loads": {"minimobile_kernels.kernel_cache"},  # our own machine code, behind a checksum
    "pickle.Unpickler": set(),
    "torch.load": set(),
    "eval": set(),
    # NumPy's has other last bits with AVX-512 than without: `elementwise.exponential` has not.
    "np.exp": {"minimobile.models.losses"},  # a mean, rounded to float32 at once
    "exec": set(),
    "print": set(),
}

NEVER_ON = {"fastmath", "allow_pickle"}

# A path of somebody's machine: their home folder, a temporary folder, a mounted disk.
MACHINE_PATH = re.compile(r"(?<![\w./~-])(?:/(?:home|Users|root|tmp|work|mnt)/\w|[A-Z]:\\Users\\)")
TEXT_SUFFIXES = {".py", ".md", ".cfg", ".toml", ".in", ".txt", ".yml", ".yaml", ".sh", ""}


def check_layers(modules: Modules) -> Iterator[Fault]:
    """Imports point downwards only, and never in circles; a definition imports definitions alone."""
    ranks = {name: rank for rank, name in enumerate(PACKAGES)}
    definitions = {f"minimobile_kernels.{name}" for name in DEFINITIONS}
    graph: dict[str, dict[str, ast.stmt]] = {}
    for module in modules.values():
        graph[module.name] = {}
        home = _package(module.name)
        if home not in ranks:
            yield module.fault(None, f"{home} has no place in PACKAGES; give it one")
            continue
        for found in find_imports(module, modules):
            if found.name not in modules or found.name == module.name:
                continue
            graph[module.name][found.name] = found.node
            if ranks.get(_package(found.name), 0) > ranks[home]:
                yield module.fault(found.node, f"{module.name} imports {found.name}, which stands above it")
            if module.name in definitions and found.name not in definitions:
                yield module.fault(found.node, f"{module.name} is a definition and imports {found.name}, which is none")
    for circle in _find_circles(graph):
        node = graph[circle[0]][circle[1]]
        yield modules[circle[0]].fault(node, f"imports go in a circle: {' -> '.join(circle)}")


def _package(name: str) -> str:
    """Return the entry of `PACKAGES` that a module should belong to.

    >>> _package("minimobile.formats.keras.keras"), _package("minimobile_kernels.simd"), _package("minimobile")
    ('minimobile.formats', 'minimobile_kernels', 'minimobile')
    """
    root, _, rest = name.partition(".")
    return root if root != "minimobile" or not rest else f"{root}.{rest.partition('.')[0]}"


def check_third_party(modules: Modules) -> Iterator[Fault]:
    """Every package from outside is imported only where THIRD_PARTY says."""
    for module in modules.values():
        home = _longest_match(module.name, THIRD_PARTY, False)
        always, lazily = THIRD_PARTY[home] if home else (set[str](), set[str]())
        for found in find_imports(module, modules):
            package = found.name.partition(".")[0]
            if package in {"minimobile", "minimobile_kernels", *sys.stdlib_module_names, *always}:
                continue
            if package not in lazily:
                yield module.fault(found.node, f"{module.name} may not import {package}; see THIRD_PARTY")
            elif not found.is_lazy:
                yield module.fault(found.node, f"{module.name} may import {package} only inside a function")


def check_sizes(modules: Modules) -> Iterator[Fault]:
    """No module is longer than MAX_LINES."""
    for module in modules.values():
        lines = module.text.count("\n")
        if lines > MAX_LINES:
            yield module.fault(None, f"{lines} lines; a module has at most {MAX_LINES}")


def check_scripts(root: Path) -> Iterator[Fault]:
    """No script of a page is longer than MAX_LINES, either."""
    for path in sorted((root / "minimobile").rglob("*.js")):
        lines = path.read_text(encoding="utf-8").count("\n")
        if lines > MAX_LINES:
            yield Fault(path.relative_to(root), 1, f"{lines} lines; a script has at most {MAX_LINES}")


def check_calls(modules: Modules) -> Iterator[Fault]:
    """What HOMES names stands only there, and the switches in NEVER_ON are never on."""
    last_words = {rule.rpartition(".")[2] for rule in HOMES}
    for module in modules.values():
        for node in module.nodes:
            if isinstance(node, ast.ImportFrom) and node.module in ("pickle", "_pickle"):
                yield module.fault(node, "pickle runs what a file says; read it with an allow-list of our own")
            if isinstance(node, (ast.Attribute, ast.Name)) and _last_word(node) in last_words:
                name = _dotted(node)
                for rule, homes in HOMES.items():
                    is_meant = name == rule or ("." in rule and name.endswith(f".{rule}"))
                    if is_meant and module.name not in homes:
                        where = f"only {', '.join(sorted(homes))} may" if homes else "the library never does"
                        yield module.fault(node, f"{rule}: {where}")
            for switch, value in _find_switches(node):
                if switch in NEVER_ON and not (isinstance(value, ast.Constant) and value.value is False):
                    yield module.fault(value, f"{switch} is {ast.unparse(value)}; it is False everywhere")


def _dotted(node: ast.expr) -> str:
    """Return `a.b.c` for names and their attributes, with `?` for whatever else has an attribute."""
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def _last_word(node: ast.Attribute | ast.Name) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id


def _find_switches(node: ast.AST) -> Iterator[tuple[object, ast.expr]]:
    """Yield names and values of a call's keywords, and of a dictionary's entries, from which keywords are made."""
    if isinstance(node, ast.Call):
        yield from ((keyword.arg, keyword.value) for keyword in node.keywords)
    elif isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        yield from ((key.value, value) for key, value in pairs if isinstance(key, ast.Constant))


def check_ladders(modules: Modules) -> Iterator[Fault]:
    """Nobody asks of a node which operation it is: what an operation is like stands in its own module."""
    for module in modules.values():
        if _package(module.name) == "minimobile.formats":  # other programs' operations have no table of ours
            continue
        for node in module.nodes:
            if isinstance(node, ast.Compare) and isinstance(node.left, ast.Attribute) and node.left.attr == "op":
                is_a_search = isinstance(node.ops[0], ast.Eq) and ast.unparse(node.comparators[0]) == "op"
                if not is_a_search:
                    yield module.fault(node, f"{ast.unparse(node)[:60]}: ask the operation's table what it is like")


def check_machine_paths(root: Path) -> Iterator[Fault]:
    """No file names a folder of somebody's machine."""
    folders = ("minimobile", "kernels", "tests", "tools", ".ci", "docs")
    files = [path for path in root.iterdir() if path.is_file() and path.name != ".git"]  # a worktree's link to its own
    files += [path for folder in folders for path in (root / folder).rglob("*") if path.is_file()]
    for path in sorted(files):
        if path.suffix not in TEXT_SUFFIXES or "__pycache__" in path.parts:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            found = MACHINE_PATH.search(line)
            if found:
                yield Fault(path.relative_to(root), number, f"names a path of a machine: {line[found.start() :][:40]}")


def check_packaging(root: Path, modules: Modules) -> Iterator[Fault]:
    """Every folder of modules stands under `packages` in setup.cfg: what does not is missing where it is installed."""
    setup = root / "setup.cfg"
    if not setup.is_file():
        return
    parser = configparser.ConfigParser()
    parser.read(setup, encoding="utf-8")
    listed = parser["options"]["packages"].split()
    for module in modules.values():
        if module.path.name == "__init__.py" and module.name not in listed:
            sentence = "is a folder of modules and missing under packages: it would not be installed"
            yield Fault(setup.relative_to(root), 1, f"{module.name} {sentence}")


CHECKS: tuple[Callable[[Modules], Iterator[Fault]], ...] = (
    check_layers,
    check_third_party,
    check_sizes,
    check_calls,
    check_ladders,
    check_docstrings,
)


def _longest_match(name: str, table: Mapping[str, object], skip_root: bool) -> str | None:
    """Return the longest dotted prefix of `name` in the table; `skip_root` leaves out the bare package's name."""
    parts = name.split(".")
    prefixes = [".".join(parts[:count]) for count in range(len(parts), 1 if skip_root else 0, -1)]
    return next((prefix for prefix in prefixes if prefix in table), None)


def _find_circles(graph: Mapping[str, Mapping[str, object]]) -> Iterator[list[str]]:
    """Yield one circle per place where a depth-first walk comes back to a module that it is still inside of."""
    finished: set[str] = set()

    def walk(name: str, trail: list[str]) -> Iterator[list[str]]:
        if name in trail:
            yield [*trail[trail.index(name) :], name]
        elif name not in finished:
            for other in graph.get(name, ()):
                yield from walk(other, [*trail, name])
            finished.add(name)

    for name in graph:
        yield from walk(name, [])


def main(arguments: list[str]) -> int:
    """Check the tree at ROOT (default: the one this file stands in) and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, nargs="?", default=Path(__file__).resolve().parent.parent, metavar="ROOT")
    root = parser.parse_args(arguments).root
    modules = read_modules(root)
    faults = [fault for check in CHECKS for fault in check(modules)]
    faults += [*check_scripts(root), *check_packaging(root, modules), *check_machine_paths(root)]
    for fault in sorted(faults):
        print(f"{fault.path}:{fault.line}: {fault.sentence}")
    print(f"house rules: {len(modules)} modules, {len(faults)} {'fault' if len(faults) == 1 else 'faults'}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
