"""The page as one text: its markup, style and scripts, the modules joined, and the data, none of which can break out.

The scripts are plain modules without a build step: joining them is to leave out what they import and export. So the
same files run one by one in the tests, and the page can be made wherever Python is.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html import escape
from importlib.resources import files
from typing import Any

IMPORT = re.compile(r'^import \{[^}]*\} from "\./([\w.]+)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|class)\b)", re.MULTILINE)
UNSAFE = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})
POLICY = (
    "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; img-src data: blob:; "
    "worker-src blob:; base-uri 'none'; form-action 'none'"
)


def build_page(document: dict[str, Any], pictures: str, weights: str) -> str:
    """Return the HTML of a page. `pictures` and `weights` are payloads; that of weights comes last."""
    script = f'(() => {{\n"use strict";\n{join_modules("main.js")}}})();\n'
    style = read_source("style.css")
    policy = POLICY.format(script=_hash(script), style=_hash(style))
    parts = {
        "policy": escape(policy),
        "title": escape(document["title"]),
        "style": style,
        "document": write_json(document),
        "pictures": pictures,
        "worker": f'"use strict";\n{join_modules("worker.js")}',
        "script": script,
        "weights": weights,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], read_source("index.html"))


def join_modules(entry: str) -> str:
    """Return a module and all that it imports as one script, what is imported first, without import and export."""
    joined: dict[str, str] = {}

    def visit(name: str) -> None:
        if name in joined:
            return
        text = read_source(name)
        joined[name] = ""  # modules do not import in circles; a second visit finds it here
        for other in IMPORT.findall(text):
            visit(other)
        del joined[name]
        joined[name] = EXPORT.sub("", IMPORT.sub("", text))

    visit(entry)
    return "\n".join(joined.values())


def read_source(name: str) -> str:
    """Return the text of a file of the page."""
    return (files("minimobile.explorer") / "page" / name).read_text(encoding="utf-8")


def write_json(value: Any) -> str:
    """Return JSON that may stand in a script element: nothing in it ends the element, or a line of JavaScript.

    >>> write_json({"label": "</script>"})
    '{"label":"\\\\u003c/script\\\\u003e"}'
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(UNSAFE)


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
