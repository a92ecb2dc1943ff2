"""The objects in a TorchScript archive (torch.jit.save) as a state dict. The program in `code/` is never looked at.

An object of a `__torch__.` class is pickled as its attributes; submodules are attributes, so that the path to a tensor
is its name in the module's state dict. Source: torch/csrc/jit/serialization/pickler.cpp and docs/serialization.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from minimobile.errors import FormatError
from minimobile.formats.pytorch.pickle_machine import STEPS, Global, OrderedDict, PickleMachine
from minimobile.formats.pytorch.tensors import Tensor

CODE = "code"  # the folder of the program
DEPTH_LIMIT = 32  # modules within modules; torchvision's V2 has 5
VALUE_LIMIT = 50_000  # attributes looked at; V2 as torchvision writes it has 1,125
NAME_LIMIT = 500  # characters of a weight's whole name
SAVE = "save the module's state_dict() instead: torch.save(torch.jit.load(FILE).state_dict(), 'net.pth') in PyTorch"
_PREFIX = "__torch__."


@dataclass(frozen=True)
class ScriptClass:
    """A class that the archive's own program defines: a name, and nothing that could be called."""

    name: str


@dataclass(eq=False)
class ScriptObject:
    """An object of such a class: what it is called and its attributes."""

    name: str
    attributes: dict[str, Any] = field(default_factory=dict)


class ScriptMachine(PickleMachine):
    """The machine of state dicts, and objects of classes that are names alone."""

    expected: ClassVar[str] = "a TorchScript module of plain weights"

    def _find(self, module: Any, name: Any) -> None:
        is_class = type(module) is str and type(name) is str and f"{module}.".startswith(_PREFIX)
        if is_class:
            self._push(ScriptClass(f"{module}.{name}"[:200]))
        else:
            super()._find(module, name)

    def _new_object(self) -> None:
        given, named = self._pop(), self._pop()
        if type(named) is not ScriptClass or given != ():
            raise self._error(f"expected a new object of a class of the program, found type {type(named).__name__}")
        self._push(ScriptObject(named.name))

    def _set_state(self) -> None:
        state, target = self._pop(), self._pop()
        if type(target) is not ScriptObject:
            self._push(target)
            self._push(state)
            super()._set_state()
            return
        if type(state) is not dict or any(type(name) is not str for name in state) or target.attributes:
            raise self._error(
                f"{target.name}: expected its attributes by name, once, found them in type {type(state).__name__}"
            )
        target.attributes.update(state)
        self._push(target)

    steps: ClassVar[dict[int, Callable[[Any], None]]] = {**STEPS, 0x81: _new_object, 0x62: _set_state}  # NEWOBJ, BUILD


def script_names(where: str) -> dict[str, Global]:
    """Return what a module's attributes may name beside tensors: typed lists and dicts, and devices."""

    def only_value(given: tuple[Any, ...]) -> Any:
        if not given:
            raise FormatError(f"{where}: expected a typed list or dict to be made of one, found nothing")
        return given[0]

    names = [f"torch.jit._pickle build_{kind}list" for kind in ("int", "double", "bool", "tensor")]
    names += ["torch.jit._pickle restore_type_tag", "torch device"]
    return {name: Global(name, only_value) for name in names}


def flatten_module(where: str, module: Any) -> OrderedDict:
    """Return the tensors of a TorchScript module by their names in its state dict.

    Raises FormatError for what is no module, for one that holds itself, and for one whose weights are constants of its
    program (torch.jit.freeze), which have no names.
    """
    if type(module) is not ScriptObject:
        raise FormatError(f"{where}: expected a TorchScript module, found type {type(module).__name__}")
    tensors = OrderedDict()
    pending: list[tuple[str, ScriptObject, int]] = [("", module, 0)]
    count = 0
    while pending:
        prefix, owner, depth = pending.pop()
        count += len(owner.attributes)
        if depth > DEPTH_LIMIT or count > VALUE_LIMIT:
            raise FormatError(
                f"{where}: expected at most {DEPTH_LIMIT} modules in one another and {VALUE_LIMIT} attributes, found "
                f"more (a module may hold itself); {SAVE}"
            )
        inner = []
        longest = max(map(len, owner.attributes), default=0)
        if len(prefix) + longest > NAME_LIMIT:
            raise FormatError(f"{where}: expected names of at most {NAME_LIMIT} characters, found one of more")
        for name, value in owner.attributes.items():
            if type(value) is Tensor:
                tensors[prefix + name] = value
            elif type(value) is ScriptObject:
                inner.append((f"{prefix}{name}.", value, depth + 1))
        pending.extend(reversed(inner))
    if not tensors:
        raise FormatError(
            f"{where}: expected a TorchScript module with weights, found none under a name: torch.jit.freeze made them "
            "constants of the program; save the state_dict() of the module that was frozen"
        )
    return tensors
