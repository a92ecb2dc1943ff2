"""The library's modules as `house_rules` reads them: texts and syntax trees, of which none is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple


class Fault(NamedTuple):
    """One broken rule and where."""

    path: Path
    line: int
    sentence: str


@dataclass(frozen=True)
class Module:
    """One module of the library: its dotted name, path relative to the root, text and syntax tree."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """Every node of the tree."""
        return list(ast.walk(self.tree))

    def fault(self, node: ast.AST | None, sentence: str) -> Fault:
        """Return a fault at a node of this module (None: at its first line)."""
        return Fault(self.path, getattr(node, "lineno", 1), sentence)


class Import(NamedTuple):
    """One imported module, and whether the import stands inside a function or under `if TYPE_CHECKING:`."""

    name: str
    node: ast.stmt
    is_lazy: bool


Modules = Mapping[str, Module]
Function = ast.FunctionDef | ast.AsyncFunctionDef


def read_modules(root: Path) -> dict[str, Module]:
    """Return the library's modules by name."""
    modules = {}
    for base, package in ((root, "minimobile"), (root / "kernels", "minimobile_kernels")):
        for path in sorted((base / package).rglob("*.py")):
            parts = path.relative_to(base).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            text = path.read_text(encoding="utf-8")
            modules[name] = Module(name, path.relative_to(root), text, ast.parse(text))
    return modules


def find_imports(module: Module, modules: Modules) -> Iterator[Import]:
    """Yield every module that a module imports; `from package import module` is resolved to the module."""
    for node, is_lazy in _find_import_statements(module.tree, False):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node, is_lazy)
            continue
        package = node.module or ""
        if node.level:  # relative: from the module's own package upwards
            is_package = module.path.name == "__init__.py"
            parts = module.name.split(".")
            parts = parts[: len(parts) - node.level + is_package]
            package = ".".join([*parts, package] if package else parts)
        for alias in node.names:
            full = f"{package}.{alias.name}"
            yield Import(full if full in modules else package, node, is_lazy)


def _find_import_statements(node: ast.AST, is_lazy: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Yield imports, and whether they stand in a function or under `if TYPE_CHECKING:`; no expression holds one."""
    is_typing = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
    is_lazy = is_lazy or is_typing or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child, is_lazy
        elif isinstance(child, (ast.stmt, ast.excepthandler, ast.match_case)):
            yield from _find_import_statements(child, is_lazy)
