"""The site's pages that are made and not written, and its links that lead out of `docs/`: hooks of MkDocs.

A page of the repository's root becomes one of the site; the commands' page is made from the program's own help; and a
file of the sources that a page links to becomes a page that shows it; the explorer's pages are made by `mm.explore`.
Texts stay as they are, to be read in an editor.
"""

from __future__ import annotations

import os
import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
DOCS = "docs/"
# The runs that can be explored: the file's name, the embedded model, the picture beside it, and what it shows.
EXPLORED = (
    ("digits", "demo:digits", "digit_7.png", "A MobileNet V1 reads a handwritten digit"),
    ("scenes", "demo:scenes", "scene.png", "A MobileNet V2 with DeepLabV3+ says what every pixel of a scene shows"),
)
# Where the pages that do not lie in docs/ stand in the site.
MOVED = {
    "README.md": "index.md",
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
}
SHOWN = {".py": "python", ".sh": "sh", ".cfg": "ini", ".toml": "toml", ".txt": "text"}  # languages of sources
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)(?P<path>[^)#\s]+)(?=[)#])")
FENCE = re.compile(r"^(?:```|~~~).*?^(?:```|~~~)$", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made: MkDocs calls this when it has listed `docs/`."""
    from mkdocs.structure.files import File

    if str(ROOT) not in sys.path:  # while MkDocs reads this file it keeps no change of sys.path
        sys.path.insert(0, str(ROOT))
    import minimobile
    from tools.notebooks import describe

    made = {place: (ROOT / origin).read_text(encoding="utf-8") for origin, place in MOVED.items()}
    written = {DOCS + file.src_uri: file.content_string for file in files if file.src_uri.endswith(".md")}
    texts = written | {origin: made[place] for origin, place in MOVED.items()}
    for source in sorted({target for origin, text in texts.items() for target in find_sources(text, origin)}):
        made[find_place(source)] = show_source(source)
    made["commands.md"] = describe_commands()
    for file in files:
        if file.src_uri.endswith(".ipynb"):
            made[file.src_uri.removesuffix(".ipynb") + ".md"] = describe(ROOT / DOCS / file.src_uri)
    made["explore/index.md"] = list_explored()
    for place, text in made.items():
        files.append(File.generated(config, place, content=text))
    for name, model, picture, _ in EXPLORED:
        page = minimobile.explore(model, ROOT / "minimobile" / "demo" / picture)
        files.append(File.generated(config, f"explore/{name}.html", content=page.html))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point the links of a page to where things stand in the site: MkDocs calls this for every page."""
    place = page.file.src_uri
    origin = next((origin for origin, moved in MOVED.items() if moved == place), DOCS + place)
    return move_links(markdown, origin, place)


def move_links(text: str, origin: str, place: str) -> str:
    """Return the text of the file `origin` with its links as they are from `place`, outside blocks of code.

    >>> move_links("[how](../SECURITY.md#a), [why](formats.md)", "docs/speed.md", "speed.md")
    '[how](security.md#a), [why](formats.md)'
    """

    def move(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(origin), link["path"]))
        return posixpath.relpath(find_place(target), posixpath.dirname(place) or ".")

    def move_all(piece: str) -> str:
        return LINK.sub(move, piece)

    parts, end = [], 0
    for fence in FENCE.finditer(text):
        parts += [move_all(text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, move_all(text[end:])])


def find_place(path: str) -> str:
    """Return where a file of the repository stands in the site.

    >>> find_place("README.md"), find_place("docs/lesson/run.py"), find_place("tools/bench.py")
    ('index.md', 'lesson/run.py', 'sources/tools/bench.py.md')
    """
    if path in MOVED:
        return MOVED[path]
    return path.removeprefix(DOCS) if path.startswith(DOCS) else f"sources/{path}.md"


def find_sources(text: str, origin: str) -> Iterator[str]:
    """Yield the files outside `docs/` that a page links to, as paths in the repository."""
    for link in LINK.finditer(FENCE.sub("", text)):
        target = posixpath.normpath(posixpath.join(posixpath.dirname(origin), link["path"]))
        if find_place(target).startswith("sources/"):
            yield target


def show_source(path: str) -> str:
    """Return the page that shows a file of the sources."""
    text = (ROOT / path).read_text(encoding="utf-8")
    language = SHOWN.get(Path(path).suffix, "text")
    ticks = "`" * (1 + max([2, *(len(run) for run in re.findall("`+", text))]))
    header = "---\nsearch:\n  exclude: true\n---\n"
    return f'{header}# {path}\n\n{ticks}{language} linenums="1"\n{text.rstrip()}\n{ticks}\n'


def list_explored() -> str:
    """Return the page that leads to the explorer's pages."""
    rows = [f"- [{title}]({name}.html)" for name, _, _, title in EXPLORED]
    return (
        "# Runs to click\n\nEach is one file that computes a whole network in your browser, to the engine's bits: open "
        "a layer, a channel, a value, down to one product; change a pixel or a weight and see what follows. "
        "[What the page is](../explorer.md), and how to make one of your own model and photograph.\n\n"
        + "\n".join(rows)
        + "\n"
    )


def describe_commands() -> str:
    """Return the page of the commands: what `--help` says of each, as tables."""
    import typer

    from minimobile.cli import build_app

    # What a default says must be that of any machine.
    os.environ.pop("MINIMOBILE_MODEL", None)
    group: Any = typer.main.get_command(build_app())
    parts = [
        f"# The commands\n\nWhat `minimobile --help` and `minimobile COMMAND --help` say.\n\n{_last_paragraph(group)}\n"
    ]
    for name, command in group.commands.items():
        parts.append("\n".join(_describe_command(f"minimobile {name}", command)))
    return "\n".join(parts)


def _last_paragraph(group: Any) -> str:
    """Return what the program's own help says of its output and its exit codes."""
    return " ".join(group.help.split("\n\n")[-1].split())


def _describe_command(name: str, command: Any) -> Iterator[str]:
    context = command.make_context(name, [], resilient_parsing=True)
    yield f"## {name}\n"
    yield f"```text\n{' '.join(command.get_usage(context).removeprefix('Usage: ').split())}\n```\n"
    yield f"{escape(command.help)}\n"
    rows = [parameter.get_help_record(context) for parameter in command.get_params(context)]
    yield "| argument or option | what it does |\n|---|---|"
    for title, text in filter(None, rows):
        yield f"| {' '.join(f'`{word}`' for word in re.split(r'  +', title))} | {escape(text)} |".replace("\n", " ")
    yield ""


def escape(text: str) -> str:
    """Return a text that Markdown shows as it is; what stands between backticks stays code.

    Of < no backslash takes its meaning: Python-Markdown shows both.
    """
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(
        piece if piece.startswith("`") else re.sub(r"([\\*_>\[\]|#])", r"\\\1", piece).replace("<", "&lt;")
        for piece in pieces
    )


DOCTEST = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)
KEPT = re.compile(r"```.*?```|`[^`]*`|^ *\*+|\*", re.MULTILINE | re.DOTALL)


def write_docstring(text: str) -> str:
    r"""Return a docstring as Markdown that shows it as it is: examples as code, and products as no emphasis.

    >>> print(write_docstring("The sum of x * w * 2**31.\n\n>>> 2 * 3\n6"))
    The sum of x \* w \* 2\*\*31.
    <BLANKLINE>
    ```pycon
    >>> 2 * 3
    6
    ```
    """
    fenced = DOCTEST.sub(lambda example: f"```pycon\n{example[0]}\n```", text)
    return KEPT.sub(lambda found: r"\*" if found[0] == "*" else found[0], fenced)
