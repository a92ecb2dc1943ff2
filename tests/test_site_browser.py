"""The built site in a real browser, opened from disk: everyone can read it, Tab reaches all, and it asks nobody.

`mkdocs build --site-dir FOLDER` makes the site; MINIMOBILE_SITE names the folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import page_checks
import pytest

pytestmark = pytest.mark.browser
NOT_READ = {"404.html", "explore/digits.html", "explore/scenes.html"}  # a server's, and those with tests of their own


@pytest.fixture(scope="module")
def site() -> Path:
    folder = os.environ.get("MINIMOBILE_SITE")
    if not folder:
        pytest.skip("MINIMOBILE_SITE is not set: no built site")
    return Path(folder).resolve()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Any]]:
    pages = []

    def open_one(width: int = 1280, scheme: str = "light") -> Any:
        page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
        pages.append(page)
        page.set_default_timeout(page_checks.PATIENCE)
        return page

    yield open_one
    for page in pages:
        page.close()


@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (1280, "light")])
def test_everyone_can_read_it(site: Path, open_page: Callable[..., Any], width: int, scheme: str) -> None:
    """All pages: contrast of 4.5, names of pictures and controls, nothing cut off at the side; no error, no request."""
    page = open_page(width, scheme)
    names = {path.relative_to(site).as_posix() for path in site.rglob("*.html")} - NOT_READ
    assert len(names) > 40 and {"changes.html", "api/models.html"} <= names
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda request: None if request.url.startswith(("file:", "data:")) else complaints.append(request.url),
    )
    faults: dict[str, Any] = {}
    for name in sorted(names):
        page.goto((site / name).as_uri())
        found = page_checks.find_faults(page)
        if found:
            faults[name] = found
    assert faults == {}
    assert complaints == []


@pytest.mark.parametrize("name", ["index", "tasks/segment", "commands"])
def test_tab_reaches_every_control(site: Path, open_page: Callable[..., Any], name: str) -> None:
    page = open_page()
    page.goto((site / f"{name}.html").as_uri())
    assert page_checks.check_keyboard(page) > 20


def test_docstrings_are_shown_as_written(site: Path, open_page: Callable[..., Any]) -> None:
    """Markdown would make of >>> a quotation in three quotations, and of 2**31 * 2**shift another number."""
    page = open_page()
    page.goto((site / "api/definitions.html").as_uri())
    assert "scale = multiplier / 2**31 * 2**shift and 2**30 <= multiplier < 2**31." in page.inner_text("article")
    assert page.locator(".doc blockquote, .doc em").count() == 0
    assert page.locator(".doc-contents > .highlight .gp").count() > 5


def test_it_can_be_searched_without_a_network(site: Path, open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.goto((site / "tasks/segment.html").as_uri())
    page.click("input.md-search__input")
    page.keyboard.type("padding")
    page.wait_for_selector(".md-search-result__item")
    assert "SAME padding" in page.inner_text(".md-search-result__list")
