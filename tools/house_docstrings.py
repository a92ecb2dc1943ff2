"""The rules of `house_rules` about docstrings: they are there, and what they say of arguments fits the signature."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tools.house_sources import Fault, Function, Module, Modules

ARGUMENT_SECTION = re.compile(r"^(?:Args|Arguments|Parameters):\n(.*?)(?=^\S|\Z)", re.MULTILINE | re.DOTALL)
WRITTEN_CALL = re.compile(r"(?:\A|\n\n)(\w+)\(([\w\s,*]*)\)")  # as a docstring begins, or one of its paragraphs
SHAPE_SECTION = re.compile(r"\bShapes: (.*?)(?:->|\.\s|\n\n|\Z)", re.DOTALL)
NOT_ARGUMENTS = {"all", "both", "each", "others", "or", "out", "result"}


def check_docstrings(modules: Modules) -> Iterator[Fault]:
    """Every module and public function has a docstring, and what any docstring says of arguments fits the signature."""
    for module in modules.values():
        if not ast.get_docstring(module.tree):
            yield module.fault(None, "the module has no docstring")
        for function, is_public in _find_functions(module.tree, True):
            text = ast.get_docstring(function)
            if text is None:
                if is_public:
                    yield module.fault(function, f"{function.name} is public and has no docstring")
                continue
            yield from _check_arguments(module, function, text)
            yield from _check_written_calls(module, function, text)


def _argument_names(function: Function) -> list[str]:
    """Return the names of a function's arguments, without those that its callers do not give."""
    signature = function.args
    everything = [*signature.posonlyargs, *signature.args, signature.vararg, *signature.kwonlyargs, signature.kwarg]
    names = [argument.arg for argument in everything if argument is not None]
    return [name for name in names if name not in ("self", "cls", "typing_context")]


def _check_written_calls(module: Module, function: Function, text: str) -> Iterator[Fault]:
    """A call that a docstring writes out has the arguments of the function itself, or of the one that it returns."""
    calls = WRITTEN_CALL.findall(text)
    if not calls:
        return
    inner = {child.name: child for child in ast.walk(function) if isinstance(child, Function) and child is not function}
    returned = [
        node.value.id for node in ast.walk(function) if isinstance(node, ast.Return) if isinstance(node.value, ast.Name)
    ]
    described = next((inner[name] for name in returned if name in inner), None)
    for name, arguments in calls:
        target = function if name == function.name else described
        written = re.findall(r"\w+", arguments)
        if target is not None and written != _argument_names(target):
            right = ", ".join(_argument_names(target))
            yield module.fault(
                function, f"{function.name}: the docstring writes {name}({', '.join(written)}), not ({right})"
            )


def _check_arguments(module: Module, function: Function, text: str) -> Iterator[Fault]:
    names = _argument_names(function)
    section = ARGUMENT_SECTION.search(text)
    if section:
        described = re.findall(r"^ +\*{0,2}(\w+)(?: \([^)]*\))?:", _outermost(section[1]), re.MULTILINE)
        for name in described:
            if name not in names:
                yield module.fault(function, f"{function.name}: the docstring describes {name}, which is no argument")
        for name in names:
            if name not in described:
                yield module.fault(function, f"{function.name}: the docstring's arguments leave out {name}")
    shapes = SHAPE_SECTION.search(text)
    if shapes:
        mentioned = re.findall(r"(?:^|, |and )([a-z_]\w*) \(", shapes[1])
        is_about_arguments = set(mentioned) & set(names) and "step" not in names  # a step brings a fast kernel's arrays
        for name in mentioned if is_about_arguments else ():
            if name not in names and name not in NOT_ARGUMENTS:
                yield module.fault(function, f"{function.name}: Shapes names {name}, which is no argument")


def _find_functions(node: ast.AST, is_public: bool) -> Iterator[tuple[Function, bool]]:
    """Yield functions and methods, those inside functions too, and whether each is public and must be described."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function):
            decorators = {ast.unparse(decorator).rpartition(".")[2] for decorator in child.decorator_list}
            yield child, is_public and not child.name.startswith("_") and not decorators & {"overload", "setter"}
            yield from _find_functions(child, False)
        elif isinstance(child, ast.ClassDef):
            yield from _find_functions(child, is_public and not child.name.startswith("_"))
        elif isinstance(child, (ast.If, ast.Try)):
            yield from _find_functions(child, is_public)


def _outermost(section: str) -> str:
    """Return the lines of the least indentation: an argument's own continuation lines are deeper."""
    lines = [line for line in section.splitlines() if line.strip()]
    depth = min((len(line) - len(line.lstrip()) for line in lines), default=0)
    return "\n".join(line for line in lines if len(line) - len(line.lstrip()) == depth)
