"""What every command shares: the options that steer its output; errors become messages and exit codes.

0 ok · 1 a fault of ours · 2 usage · 3 rules · 4 source · 5 capture · 6 nothing binarized, or strict ·
7 self-check · 130 interrupted
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import inspect
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from binarize.commands.console.screen import Screen
from binarize.disk.replacement import recover
from binarize.errors import BinarizeError, BinarizeWarning, RewriteError, UsageError, in_command
from binarize.failures import in_words

__all__ = ["command"]

_OUTPUT = "Output"

# Offered by every command, in this order.
_SCREEN_OPTIONS: dict[str, Any] = {
    "json": Annotated[
        bool, typer.Option("--json", help="One JSON document on stdout.", rich_help_panel=_OUTPUT)
    ],
    "plain": Annotated[
        bool, typer.Option("--plain", help="No colour, no animation.", rich_help_panel=_OUTPUT)
    ],
    "quiet": Annotated[
        bool, typer.Option("--quiet", "-q", help="Results and errors alone.", rich_help_panel=_OUTPUT)
    ],
    "verbose": Annotated[
        bool, typer.Option("--verbose", "-v", help="More, with timings.", rich_help_panel=_OUTPUT)
    ],
    "debug": Annotated[
        bool, typer.Option("--debug", help="Tracebacks with errors.", rich_help_panel=_OUTPUT)
    ],
}


def command(function: Callable[..., None]) -> Callable[..., None]:
    """A function of a screen and its own options, as a command with the output options and exit codes of all.

    Example:
        @app.command()
        @command
        def greet(screen: Screen, name: str) -> None:
            screen.show(f"hello {name}")
    """
    signature = inspect.signature(function, eval_str=True)
    own = list(signature.parameters.values())[1:]
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in _SCREEN_OPTIONS.items()
    ]

    @functools.wraps(function)
    def run(**arguments: Any) -> None:
        output = {name: arguments.pop(name) for name in _SCREEN_OPTIONS}
        name = function.__name__.replace("_", " ")
        screen = Screen(**output, command=name, words=_words(name, arguments))
        # The user's own code may print, and a second text would break the document.
        aside = redirect_stdout(sys.stderr) if screen.json else nullcontext()
        try:
            with aside, _warnings_on(screen), screen.ending, in_command():
                _recover(arguments)
                function(screen, **arguments)
        except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            screen.error("interrupted")
            raise typer.Exit(130) from None
        except BinarizeError as error:
            raise typer.Exit(_explain(screen, str(error), error, error.exit_code)) from error
        except Exception as error:
            known = _broken_install(error)
            if known is not None:
                raise typer.Exit(_explain(screen, known, error, UsageError.exit_code)) from error
            told = in_words(error)
            if told is not None:
                told.__cause__ = error
                raise typer.Exit(_explain(screen, str(told), told, told.exit_code)) from error
            raise typer.Exit(_explain(screen, f"{type(error).__name__}: {error}", error, 1)) from error

    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own] + shared
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


@contextmanager
def _warnings_on(screen: Screen) -> Iterator[None]:
    """Warnings of ours are shown as the command's own; those of other packages as ever."""
    with warnings.catch_warnings():
        usual, said = warnings.showwarning, set[str]()

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if not issubclass(category, BinarizeWarning):
                usual(message, category, *where, **more)
            elif str(message) not in said:
                said.add(str(message))
                screen.warn(str(message))

        warnings.showwarning = show
        yield


def _words(name: str, arguments: Mapping[str, Any]) -> str:
    """What tells a repetition of a command: all that was asked for, and from where."""
    try:
        here = os.getcwd()
    except OSError:  # it was deleted
        here = ""
    return hashlib.sha256(repr((here, name, sorted(arguments.items()))).encode()).hexdigest()


def _recover(arguments: Mapping[str, Any]) -> None:
    """End what a killed process has begun at a folder that is named here."""
    for value in arguments.values():
        if isinstance(value, (str, Path)) and "\0" not in str(value):
            recover(Path(value))


def _broken_install(error: Exception) -> str | None:
    """What to do about a torchvision that was built for another torch; None for any other error."""
    text = str(error)
    if "torchvision::" not in text and not ("torchvision" in text and "undefined symbol" in text):
        return None
    version = {name: importlib.metadata.version(name) for name in ("torch", "torchvision")}
    return (
        f"torchvision {version['torchvision']} does not fit torch {version['torch']}: {text.splitlines()[0]}\n"
        "  install two that belong together: pip install --upgrade torch torchvision"
    )


def _explain(screen: Screen, message: str, error: Exception, code: int) -> int:
    """Prints what went wrong and gives back the exit code."""
    if screen.debug:
        traceback.print_exception(error)
    screen.error(message)
    expected = code != 1 or isinstance(error, BinarizeError)
    expected = expected and not isinstance(error, RewriteError)
    if not (expected or screen.debug):
        screen.note("This is a fault of binarize. The same command with --debug shows where it happened.")
    with suppress(OSError):  # stdout itself may be what is full
        screen.document({"error": {"type": type(error).__name__, "message": message, "exit_code": code}})
    return code
