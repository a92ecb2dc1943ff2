"""The site: every page is in its navigation, every public name in its reference, every command on its page."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

import minimobile
from minimobile.cli import COMMANDS, build_app

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
MADE = ("commands.md", "explore/index.md", "notebooks/export.md", "notebooks/photograph.md")  # by the hooks


@pytest.fixture(scope="module")
def documentation() -> ModuleType:
    """Return the hooks as MkDocs loads them: by their path."""
    specification = importlib.util.spec_from_file_location("documentation", ROOT / "tools" / "documentation.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_every_page_is_in_the_navigation(documentation: ModuleType) -> None:
    _, navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:\n")
    listed = re.findall(r"[\w/]+\.md", navigation)
    written = [path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")]
    assert sorted(listed) == sorted([*written, *documentation.MOVED.values(), *MADE])


def test_every_public_name_is_in_the_reference() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in sorted((DOCS / "api").glob("*.md")))
    assert sorted(re.findall(r"^::: minimobile\.(\w+)$", text, re.MULTILINE)) == sorted(minimobile.__all__)


def test_the_commands_page_says_what_help_says(documentation: ModuleType) -> None:
    text = documentation.describe_commands()
    assert re.findall(r"^## minimobile (\w+)$", text, re.MULTILINE) == list(COMMANDS)
    assert "| `--top N` |" in text
    for command in build_app().registered_commands:
        assert documentation.escape(str(command.callback.__doc__).split(".\n")[0].split("\n")[0]) in text


def test_links_lead_to_where_things_stand_in_the_site(documentation: ModuleType) -> None:
    move = documentation.move_links
    assert move("[a](docs/photograph.png) [b](SECURITY.md#x)", "README.md", "index.md") == (
        "[a](photograph.png) [b](security.md#x)"
    )
    assert move("[a](../../tests/x.py)", "docs/lesson/1.md", "lesson/1.md") == "[a](../sources/tests/x.py.md)"
    untouched = "[a](https://example.org/README.md) [b](#here)\n```text\n[c](../../tests/x.py)\n```\n"
    assert move(untouched, "docs/speed.md", "speed.md") == untouched


def test_what_is_shown_as_it_is_has_no_meaning_for_markdown(documentation: ModuleType) -> None:
    assert documentation.escape("a*b_c <d> | `x*y`") == r"a\*b\_c &lt;d\> \| `x*y`"
