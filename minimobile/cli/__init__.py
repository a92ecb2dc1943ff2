"""The command line. A command is one function in one module here, and one word in `COMMANDS`."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Annotated, Any

import typer

from minimobile.cli import console
from minimobile.errors import MinimobileError

COMMANDS = (
    "demo", "classify", "segment", "detect", "features", "run", "inspect", "trace", "explore", "convert", "quantize",
    "check", "bench", "warmup",
)  # fmt: skip
"""Each is a function in a module of its name, which is imported when it is asked for, or described."""

FAILURE, WRONG_USAGE, INTERRUPTED = 1, 2, 130

# Typer depends on click, or has its own copy of it, as its version goes; its public classes lead to both.
_CLICK_EXCEPTION: type[Exception] = typer.BadParameter.__mro__[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (`sys.argv` without arguments) and return the exit code.

    0: all went well; 1: something failed, as stderr says in one sentence; 2: wrong usage; 3: `check` cannot
    tell; 130: interrupted. SIGTERM and SIGHUP end the process with 128 and their number, after tidying away what is
    half written.
    """
    console.prepare_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        command = typer.main.get_command(build_app(words[:1] if words and words[0] in COMMANDS else COMMANDS))
        with _ending_tidily(), warnings.catch_warnings():
            warnings.showwarning = _show_once()
            code = int(command.main(words or ["--help"], prog_name="minimobile", standalone_mode=False) or 0)
        with console.naming_stdout():
            sys.stdout.flush()
        if code == INTERRUPTED:  # some releases of typer catch it before us
            console.report_error("interrupted")
        return code
    except MinimobileError as error:
        console.report_error(error)
        return FAILURE
    except (KeyboardInterrupt, typer.Abort):
        console.report_error("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # the reader has gone, as in `minimobile inspect ... | head`
        console.abandon_stdout()
        return FAILURE
    except OSError as error:
        if error.filename == console.STDOUT:
            console.abandon_stdout()
        reason = error.strerror or str(error) or type(error).__name__
        console.report_error(f"{error.filename}: {reason}" if error.filename else reason)
        return FAILURE
    except _CLICK_EXCEPTION as error:
        return _explain_usage(error)
    except MemoryError as error:
        console.report_error(f"not enough memory ({str(error) or 'the system gave no more'})")
        return FAILURE
    except Exception as error:
        return _confess(error)


@contextmanager
def _ending_tidily() -> Iterator[None]:
    """Have SIGTERM and SIGHUP end this process as an exception does, unless somebody has other plans for them."""
    names = ("SIGTERM", "SIGHUP") if threading.current_thread() is threading.main_thread() else ()
    ours = [getattr(signal, name) for name in names if hasattr(signal, name)]
    ours = [number for number in ours if signal.getsignal(number) is signal.SIG_DFL]

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def build_app(commands: Sequence[str] = COMMANDS) -> typer.Typer:
    """Return the typer application with these commands."""
    app = typer.Typer(
        name="minimobile",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback()(_describe_program)
    for name in commands:
        app.command()(getattr(import_module(f"minimobile.cli.{name}"), name))
    return app


def _describe_program(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Run MobileNet V1, V2, DeepLabV3+ and SSD on pictures, with no deep-learning framework.

    Start with `minimobile demo`: it needs no network and no file.

    Results go to stdout, and what went wrong to stderr, in one line each. With --format json stdout has one whole
    document, or, where the command itself fails, nothing; a bad picture among others is an item with an "error".
    Exit codes: 0, all went well; 1, something failed; 2, wrong usage; 3, `check` cannot tell.
    """


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        from importlib.metadata import version

        console.write_text(f"minimobile {version('minimobile')}")
        raise typer.Exit


def _show_once() -> Callable[..., None]:
    """Return what writes a warning's text, not the line of Python that it came from, and each text once."""
    shown: set[str] = set()

    def show(message: Warning | str, *place: Any, **more: Any) -> None:
        if str(message) not in shown:
            shown.add(str(message))
            console.note(f"warning: {message}")

    return show


def _explain_usage(error: Any) -> int:
    context = error.ctx
    said = error.format_message().rstrip(".").replace(": Value error, ", ": ")  # what some releases of typer put first
    console.report_error(f"{said}; see {context.command_path if context else 'minimobile'} --help")
    return WRONG_USAGE


def _confess(error: Exception) -> int:
    if os.environ.get("MINIMOBILE_DEBUG"):
        traceback.print_exception(error)
    console.report_error(
        f"this is a fault of minimobile itself ({type(error).__name__}: {error}); please report it, with what the same "
        "command prints under MINIMOBILE_DEBUG=1"
    )
    return FAILURE
