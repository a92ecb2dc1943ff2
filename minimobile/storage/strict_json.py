"""JSON from files that may be hostile: no duplicate keys, no NaN, no half character, no endless nesting or number."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, NoReturn

from minimobile.errors import FormatError
from minimobile.storage.files import read_limited

DIGIT_LIMIT = 100  # digits of a whole number: a float64 has up to 309, and no network such a number
FILE_LIMIT = 16 * 2**20  # a config.json with 1001 labels has 70 kB
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # two of them are a character, one alone is none that could be written


def parse_json_object(content: bytes | str, where: str) -> dict[str, Any]:
    """Parse one JSON object; `where` names the place in the message of the FormatError that anything else raises."""
    try:
        text = content.decode("utf-8") if isinstance(content, bytes) else content
        value = json.loads(
            text, object_pairs_hook=_unique_pairs, parse_constant=_refuse_constant,
            parse_int=_read_whole, parse_float=_read_float,
        )  # fmt: skip
        if _SURROGATE.search(text) and not is_text(json.dumps(value, ensure_ascii=False)):
            raise ValueError("half a character, an escape of \\ud800 to \\udfff that is alone")
    except UnicodeDecodeError as error:
        raise FormatError(f"{where}: expected JSON in UTF-8, found an invalid byte at position {error.start}") from None
    except RecursionError:
        raise FormatError(f"{where}: expected JSON, found one nested too deeply") from None
    except ValueError as error:  # json.JSONDecodeError, and our own
        raise FormatError(f"{where}: expected valid JSON, found an error: {error}") from None
    if not isinstance(value, dict):
        raise FormatError(f"{where}: expected a JSON object, found {_json_name(value)}")
    return value


def read_json_object(path: Path) -> dict[str, Any]:
    """Read the JSON object that the file at `path` holds."""
    return parse_json_object(read_limited(path, FILE_LIMIT), str(path))


def is_text(value: object) -> bool:
    r"""Say whether a value is a text that UTF-8 can hold: it cannot where a character is half of one.

    >>> is_text("K\u00e4se"), is_text("\ud800"), is_text(3)
    (True, False, False)
    """
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:80]!r} is there twice")
    return values


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _read_whole(text: str) -> int:
    if len(text) > DIGIT_LIMIT:
        raise ValueError(f"a whole number of {len(text)} digits, of which no file needs more than {DIGIT_LIMIT}")
    return int(text)


def _read_float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:40]} is larger than any float64")
    return value


def _json_name(value: object) -> str:
    names = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
