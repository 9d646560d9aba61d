"""What the commands share: reading the command line, one-line errors with exit code 2, choosing the device."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import torch
import tyro
from rich.console import Console

from dvaepp.config import unknown
from dvaepp.errors import ConfigError, UserError

T = TypeVar("T")

#: Exit codes: bad input, and the shell's convention for a run stopped by SIGINT.
BAD_INPUT = 2
INTERRUPTED = 130


def parse(command: type[T], arguments: Sequence[str], prog: str, default: T | None = None) -> T:
    """Read a command line into a dataclass with tyro; a mistake becomes one line.

    Raises   ConfigError for an unknown flag (with the nearest one) or a value that does not fit.
             SystemExit(0) after printing the help.
    """
    printed = io.StringIO()
    try:
        # tyro draws boxes as wide as the terminal: a very wide one keeps each message on one line
        with contextlib.redirect_stderr(printed), _width("" if {"-h", "--help"} & set(arguments) else "1000"):
            parsed, rest = tyro.cli(
                command,
                args=list(arguments),
                prog=prog,
                default=default,
                return_unknown_args=True,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ConfigError(f"{_first_message(printed.getvalue())}  ({prog} --help)") from None
    if rest:
        flags = [word for word in rest if word.startswith("-")]
        if flags:
            name = flags[0].split("=")[0]
            raise ConfigError(f"{unknown('flag', name, _flags(command))}  ({prog} --help)")
        raise ConfigError(f"unexpected argument {rest[0]!r}  ({prog} --help)")
    return cast(T, parsed)


@contextlib.contextmanager
def _width(columns: str) -> Iterator[None]:
    """The terminal's width as told to tyro; nothing said leaves it as it is."""
    before = os.environ.get("COLUMNS")
    if columns:
        os.environ["COLUMNS"] = columns
    try:
        yield
    finally:
        if columns:
            del os.environ["COLUMNS"]
            if before is not None:
                os.environ["COLUMNS"] = before


def _first_message(box: str) -> str:
    """The message inside tyro's box, on one line: after the title, up to the next rule, without internal paths."""
    lines = [line.strip("│╭╮╰╯─|+- \t") for line in box.strip().splitlines()]
    message: list[str] = []
    for text in lines[1:]:
        if text:
            message.append(text)
        elif message:
            break
    words = " ".join(message) or box.strip()
    prefix, _, tail = words.partition(": ")
    return tail if prefix.startswith("Error parsing config") else words


def _flags(command: Any) -> list[str]:
    names = []
    for field in dataclasses.fields(command):
        section: Any = field.default_factory
        if dataclasses.is_dataclass(section):
            names += _flags(section)
        else:
            name = field.name.replace("_", "-")
            names.append(f"--{name}")
            if field.type in ("bool", bool):
                names.append(f"--no-{name}")
    return names


def run(prog: str, main: Callable[[], int]) -> None:
    """Run a command's main function and exit with its code; what a user can cause is one line and exit code 2."""
    # A full disk also hits TensorBoard's writer thread; it hands the error on to the main thread, which reports it.
    threading.excepthook = _quiet_on_os_errors
    try:
        code = main()
    except UserError as error:
        print(f"{prog}: error: {error}", file=sys.stderr)
        code = BAD_INPUT
    except BrokenPipeError:  # the reader of our output has gone, as in `train | head`: nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        print(f"{prog}: error: {error.strerror or error}{where}", file=sys.stderr)
        code = BAD_INPUT
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "memory" in str(error)):
            raise
        # torch's CPU allocator raises a plain RuntimeError; its first line names the size that did not fit
        print(f"{prog}: error: out of memory: {(str(error) or 'allocation failed').splitlines()[0]}", file=sys.stderr)
        code = BAD_INPUT
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        code = INTERRUPTED
    sys.exit(code)


def _quiet_on_os_errors(failure: threading.ExceptHookArgs) -> None:
    if not issubclass(failure.exc_type, OSError):
        threading.__excepthook__(failure)


def choose_device(name: str) -> torch.device:
    """The device named auto, cpu, cuda or cuda:N.

    On CUDA float32 is float32 from here on: torch would round the factors of convolutions to TF32's ten bits.

    Raises   ConfigError for any other name, and for a CUDA device that is not there.
    """
    torch.backends.cudnn.allow_tf32 = False
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, colon, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (colon and not (kind == "cuda" and index.isdecimal())):
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:N; got {name!r}")
    if kind == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError(f"device {name!r} was asked for, but torch finds no CUDA device; use --device cpu")
        if colon and int(index) >= torch.cuda.device_count():
            raise ConfigError(f"device {name!r} was asked for, but there are only {torch.cuda.device_count()}")
    return torch.device(name)


def device_name(device: torch.device) -> str:
    """The device in words, for records."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def console() -> Console:
    """Where commands print; plain lines when the output is not a terminal."""
    # no markup, no emoji: a path such as runs/[test] must come out as it is
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=not sys.stdout.isatty())
