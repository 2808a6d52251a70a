"""The command line: `main(argv) -> int` is its one entrance and its one error boundary."""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from keyword import iskeyword
from pathlib import Path
from types import FrameType
from typing import Any

import typer
from typer.exceptions import TyperException

from xaicli import __version__
from xaicli.cli.output import any_encoding, plain_warnings
from xaicli.cli.plainvalues import plain_values
from xaicli.cli.settings import defaults_of, is_of_others, is_on, read_settings, unknown_names, unknown_setting
from xaicli.cli.status import end_status
from xaicli.errors import (
    EXTRAS,
    InterruptedWorkError,
    UsageError,
    XaiError,
    leaves_work,
    missing_extra,
    note_interruption,
)

COMMANDS = {
    "demo": "demo",
    "track_report": "questions",
    "samples": "questions",
    "labels": "questions",
    "dynamics": "questions",
    "saliency": "saliency",
    "info": "questions",
    "ls": "runs",
    "findings": "questions",
    "confusion": "diagnosis",
    "steps": "diagnosis",
    "slices": "diagnosis",
    "errors": "diagnosis",
    "select": "select",
    "relabel": "relabel",
    "check": "check",
    "watch": "watch",
    "scalars": "runs",
    "compare": "runs",
    "query": "export",
    "export": "export",
    "import": "export",
    "collect": "collect",
    "embeddings": "collect",
    "checkpoint": "checkpoint",
    "compact": "runs",
    "doctor": "runs",
    "sync": "runs",
}
"""The commands in the order of the help, each with the module here that has a function of its name (`import_`)."""

_AGAIN = 0.05
"""Seconds until an interruption that was lost is tried again."""
_INTERRUPTED, _CLOSED_PIPE = 130, 141
"""What shells say of a process that Ctrl-C or a closed pipe ended."""
_SEE = "see: xai --help, or xai COMMAND --help"
_LISTINGS = (["--help"], ["-h"], ["--version"])


def build(arguments: Sequence[str] = ()) -> Any:
    """The command tree, with `XAI_*` variables and the settings file as sources of defaults.

    Args:
        arguments: The command line. Where it begins with a command, only that one is built, and where it asks for the
            list of commands, they are built without their options: both are several times faster.
    """
    listing = list(arguments) in _LISTINGS
    app = typer.Typer(
        name="xai",
        help="Which samples a model struggles with, how each class fared, which labels are wrong, what it looks at.",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback()(_root)
    for name in [name for name in COMMANDS if [name.replace("_", "-")] == list(arguments[:1])] or COMMANDS:
        module = import_module(f"xaicli.cli.{COMMANDS[name]}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name.replace("_", "-"))
        else:
            function = getattr(module, f"{name}_" if iskeyword(name) else name)
            said = _short_help(function.__doc__)
            app.command(name.replace("_", "-"), short_help=said)(_named_alone(function) if listing else function)
    tree = typer.main.get_command(app)
    for group in tree.commands.values():  # type: ignore[attr-defined]
        for below in getattr(group, "commands", {}).values():
            below.short_help = _short_help(below.help)
    plain_values(tree)
    tree.invoke = _telling(tree.invoke)  # type: ignore[assignment]
    if listing:
        return tree
    warnings: list[str] = []
    settings, path = read_settings(Path(), warnings)
    for warning in dict.fromkeys(warnings):
        _warn(warning)
    try:
        for name, command in tree.commands.items():  # type: ignore[attr-defined]
            _set_defaults(name, command, settings)
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}", hint=error.hint) from None
    if path is not None and (unknown := unknown_names(settings, _options(tree))):
        if arguments:
            build()  # another command may know them
        else:
            raise unknown_setting(unknown[0], path, _options(tree))
    return tree


def _telling(invoke: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A command that says what it leaves where Ctrl-C ends it; the parser makes a bare status of that."""

    def told(context: Any) -> Any:
        try:
            return invoke(context)
        except InterruptedWorkError as stopped:
            end_status()
            _warn(f"interrupted: {stopped.left}")
            raise

    return told


def _short_help(help_text: str | None) -> str:
    """What a command does, whole: what is shortened to one line loses its point."""
    return " ".join((help_text or "").partition("\n\n")[0].split())


def _options(tree: Any) -> dict[str, set[str]]:
    """The names of every command's options."""
    found: dict[str, set[str]] = {}
    for name, command in tree.commands.items():
        below = getattr(command, "commands", {}).values()
        found[name] = {parameter.name for one in (command, *below) for parameter in one.params}
    return found


def _named_alone(function: Callable[..., None]) -> Callable[[], None]:
    """A stand-in with the function's help and none of its options."""

    def stand_in() -> None: ...

    stand_in.__doc__ = function.__doc__
    return stand_in


def _set_defaults(name: str, command: Any, settings: dict[str, Any], group: str = "") -> None:
    """Let a command, and those behind a group, take defaults from `XAI_*` variables and the settings file."""
    for below, sub_command in getattr(command, "commands", {}).items():
        own = settings.get(name)
        _set_defaults(below, sub_command, {**settings, **(own if isinstance(own, dict) else {})}, name)
    if hasattr(command, "commands"):
        return
    called = f"{group} {name}".strip()
    for parameter in command.params:
        if parameter.param_type_name == "option" and not parameter.envvar:
            parameter.envvar = f"XAI_{parameter.name.upper()}"
            if (said := os.environ.get(parameter.envvar)) and is_of_others(called, parameter.name, said):
                parameter.value_from_envvar = _nothing
        if getattr(parameter, "multiple", False):
            # The parser would split at blanks, which rules, names of labels and of data sets have inside.
            parameter.split_envvar_value = _whole
    lists = {p.name: bool(getattr(p, "multiple", False)) for p in command.params}
    flags = {p.name for p in command.params if getattr(p, "is_flag", False)}
    commands = {known.replace("_", "-") for known in COMMANDS}
    others = partial(is_of_others, called)
    defaults = defaults_of(name, lists, settings, commands=commands, flags=flags, of_others=others)
    command.context_settings = {**command.context_settings, "default_map": defaults}


def _nothing(context: Any) -> None:
    """In place of what a variable has for other commands."""
    del context


def _whole(value: str) -> list[str]:
    """A list in a variable as if it was typed once; the option itself splits it at commas, where it does."""
    return [value]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"xai {__version__}")
        raise typer.Exit


def _root(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Show the version."),
) -> None:
    del version


def main(argv: Sequence[str] | None = None, *, alone: bool = False) -> int:
    """Run one command line.

    Args:
        argv: The arguments without the program's name; `sys.argv` when None.
        alone: Whether the process is there for this command only, and may be ended.

    Returns:
        The exit status: 0 done, 1 the data or a fault, 2 wrong usage, 130 interrupted, 141 its reader went.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Arrow's own pool holds on to some 15 MB more than a question needs.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    any_encoding()
    interruptions = _Interruptions(alone=alone)
    try:
        with plain_warnings(), interruptions:
            status = build(arguments).main(args=arguments, prog_name="xai", standalone_mode=False)
        sys.stdout.flush()
        # Something on the way made nothing of it: what is there may not be whole.
        return _INTERRUPTED if interruptions.seen else int(status or 0)
    except BrokenPipeError:
        _forget_output()
        return _CLOSED_PIPE
    except KeyboardInterrupt:
        return _INTERRUPTED
    except TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message(), file=sys.stderr)
        else:
            _say(error.format_message(), _origin(error) or _elsewhere(error) or _SEE)
        return int(error.exit_code)
    except XaiError as error:
        if _debugging(arguments):
            raise
        _say(error.message, error.hint)
        return error.exit_status
    except BaseException as error:
        # polars reports damage as PanicException, which is no Exception; SystemExit belongs to completion.
        if isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError):
            # How the parser passes on what happens within a command.
            _forget_output()
            return _CLOSED_PIPE
        if isinstance(error, SystemExit) or _debugging(arguments):
            raise
        return _INTERRUPTED if interruptions.seen else _unforeseen(error, arguments)


class _Interruptions:
    """Knows whether Ctrl-C was pressed: native code that is called back may make another error of it."""

    def __init__(self, *, alone: bool) -> None:
        self.seen = False
        self._is_dropping = False
        self._is_alone = alone

    def __enter__(self) -> None:
        # A handler of the caller's stays, and only a process's first thread may have one.
        self._is_mine = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        self._lost = sys.unraisablehook
        if self._is_mine:
            signal.signal(signal.SIGINT, self._interrupt)
            sys.unraisablehook = self._again

    def __exit__(self, *_: object) -> None:
        note_interruption(is_over=True)
        if self._is_mine:
            sys.unraisablehook = self._lost
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _again(self, lost: Any) -> None:
        """Where Python drops an interruption, within what runs as an object goes, it comes once more in a moment."""
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            self._lost(lost)
            return
        self._is_dropping = True
        try:
            self._later()
        finally:
            self._is_dropping = False

    def _later(self) -> None:
        timer = threading.Timer(_AGAIN, _thread.interrupt_main)
        timer.daemon = True
        timer.start()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self.seen = True
        note_interruption()
        if self._is_dropping:
            # What is raised here would be dropped as well.
            self._later()
            return
        if self._is_alone and _is_importing(frame):
            # A library that catches this goes on with half of what it imports, and fails later for another reason.
            if leaves_work():
                self._later()  # half a library writes nothing of what is finished
                return
            end_status()
            os._exit(_INTERRUPTED)
        signal.default_int_handler(number, frame)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _unforeseen(error: BaseException, arguments: Sequence[str]) -> int:
    """Say what no question has put into words; a fault of ours only where it is nobody else's."""
    if isinstance(error, ModuleNotFoundError) and (extra := EXTRAS.get((error.name or "").partition(".")[0])):
        wanted = missing_extra(f"xai {arguments[0]}", extra)
        _say(f"{wanted.message}: {error.name}", wanted.hint)
    elif isinstance(error, OSError) and error.errno is not None:
        named = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
        _say(f"{named or 'the output'}: {error.strerror}", "is it there, may it be read and written, is the disk full?")
        if not named:
            _forget_output()
    elif isinstance(error, MemoryError):
        _say("there is not enough memory for this", "ask for less with --epoch, --mode or --metric, or --engine duckdb")
    else:
        _say(f"{type(error).__name__}: {error}", "this is a fault of xai: run again with --debug and report it")
    return 1


def _forget_output() -> None:
    """Let nothing that is still buffered for an output that takes no more complain at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _origin(error: Any) -> str:
    """Where a wrong value is from, if it is from the settings file."""
    context, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    if context is None or parameter is None:
        return ""
    source = context.get_parameter_source(parameter.name)
    _, path = read_settings(Path())
    return f"the value is from {path}" if source is not None and source.name == "DEFAULT_MAP" else ""


def _elsewhere(error: Any) -> str:
    """Which commands have an option that this one lacks."""
    name = str(getattr(error, "option_name", "")).lstrip("-").replace("-", "_")
    having = (
        [command.replace("_", "-") for command, known in _options(build()).items() if name in known] if name else []
    )
    return f"{', '.join(having)} have it, this command cannot honour it" if having else ""


def _debugging(arguments: Sequence[str]) -> bool:
    if "--debug" in arguments or is_on(os.environ.get("XAI_DEBUG", "")):
        return True
    try:
        settings, _ = read_settings(Path())
    except XaiError:
        return False
    own = settings.get(arguments[0]) if arguments else None
    return is_on((own if isinstance(own, dict) else {}).get("debug", settings.get("debug", "")))


def _warn(message: str) -> None:
    from xaicli.render.text import message as line

    print(line("warning", message), file=sys.stderr)


def _say(message: str, hint: str) -> None:
    from xaicli.render.text import message as line

    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()  # the error comes last
    print(line("error", message), file=sys.stderr)
    if hint:
        print(line("hint", hint), file=sys.stderr)
