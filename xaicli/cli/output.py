"""Where an answer goes: the terminal, standard output as JSON, and files; and where warnings do."""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from xaicli.cli.options import Output
from xaicli.cli.status import end_status, erase_status
from xaicli.errors import UnwrittenError, UsageError, XaiError, leaving
from xaicli.vocabulary import Format

if TYPE_CHECKING:
    from xaicli.results import Result

REPORT_FORMATS = (Format.HTML, Format.PNG, Format.CSV, Format.JSON)
"""What the report commands write unless told otherwise."""


_NO_PICTURES = frozenset(
    {
        "query",
        "ls",
        "info",
        "compact",
        "doctor",
        "checkpoint inspect",
        "check",
        "select",
        "relabel export",
        "relabel apply",
        "import",
    }
)
"""Commands whose answers are tables alone."""
_FILES = frozenset(
    {
        *(f".{kind}" for kind in Format),
        *(".txt", ".parquet", ".pq", ".parq", ".jsonl", ".ndjson", ".tsv", ".xlsx", ".xls", ".arrow", ".feather"),
        *(".db", ".sqlite", ".npy", ".npz", ".pkl", ".pickle", ".pt", ".pth", ".safetensors"),
        *(".htm", ".pdf", ".svg", ".jpg", ".jpeg", ".xml", ".yaml", ".yml", ".gz", ".zip", ".zst", ".bz2", ".xz"),
    }
)
_TEXT_ERRORS, _JSON_ERRORS = "xai-text", "xai-json"
_LOOKALIKES = {
    **dict(zip("▁▂▃▄▅▆▇█", "_.-~=+*#", strict=True)),
    **dict(zip("–−×·“”’", '--x|""\'', strict=True)),
    **dict(zip("…±→≥≤", ("...", "+-", "->", ">=", "<="), strict=True)),
}
"""What stands for our own signs where the output's encoding lacks them; bars as wide as they were."""


def write(
    result: Result,
    output: Output,
    *,
    folder: Path | None = None,
    always: tuple[Format, ...] = (),
    pictures: bool = False,
    beside: Callable[[], list[Path]] | None = None,
) -> None:
    """Hand a result to the user: the answer always, its files where they can be written.

    Args:
        result: What a question returned.
        output: The user's output options.
        folder: Where files go unless `--output` says otherwise; the result's own without it.
        always: The formats written without being asked for.
        pictures: Whether each sample's maps are also a picture of their own.
        beside: What writes further files, and gives their paths.

    Raises:
        UsageError: `--format` names no format.
        XaiError: The files cannot be written, or the folder inside the run leads elsewhere; the answer is out by then.
    """
    formats = chosen_formats(output, always)
    if result.answer.command in _NO_PICTURES and Format.PNG in (output.format or ()):
        raise UsageError(
            f"xai {result.answer.command} draws nothing to write as png",
            hint="formats: html, csv, json, md",
            refused=("format",),
        )
    folder = folder or result.folder or Path("reports")
    paths: list[Path] = []
    unwritten: list[XaiError] = []
    try:
        if formats and output.output is None and folder.is_symlink():
            # A run from elsewhere must not choose where files are written.
            raise XaiError(f"{folder} is a link to {folder.readlink()}", hint="name the folder to write to with -o DIR")
        if formats:
            from xaicli.render.canvas import without_signatures

            without_signatures()
            how = {"no_images": output.no_images, "pictures": pictures}
            paths += result.save(output.output or folder, formats=formats, **how)
    except XaiError as error:
        unwritten.append(error)
    try:
        if beside is not None:
            paths += beside()
    except XaiError as error:
        unwritten.append(error)
    # The answer comes first.
    paths += [path for error in unwritten if isinstance(error, UnwrittenError) for path in error.written]
    end_status()
    if not unwritten and Format.PNG in (output.format or ()) and not any(path.suffix == ".png" for path in paths):
        warnings.warn("nothing of this answer is drawn: there is no png to write", UserWarning, stacklevel=2)
    with leaving(lambda: f"every file is written, {paths[0]} the first") if paths else contextlib.nullcontext():
        if output.json:
            with json_output() as stream:
                stream.writelines(result.json_parts(outputs=[str(path) for path in paths]))
                stream.write("\n")
        elif output.quiet:
            print("\n".join(str(path) for path in paths), end="\n" if paths else "")
        else:
            result.show_terminal(paths)
    if unwritten:
        sys.stdout.flush()
        if len(unwritten) == 1:
            raise unwritten[0]
        raise XaiError("; ".join(str(e) for e in unwritten), hint="; ".join(e.hint for e in unwritten))
    if output.open:
        _open_page(paths)


def any_encoding() -> None:
    """Let text of any script go to standard output and error, whatever their encoding: what it lacks is spelled out."""
    for name, number, way in (("stdout", 1, os.O_RDONLY), ("stderr", 2, os.O_WRONLY)):
        if getattr(sys, name) is None:
            setattr(sys, name, _in_place_of(number, way))
    codecs.register_error(_TEXT_ERRORS, _spelled_out)
    codecs.register_error(_JSON_ERRORS, _escaped)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_TEXT_ERRORS)


def _in_place_of(number: int, way: int) -> TextIO:
    """A stream for one that was closed before the start, as daemons do; no other file can get its number then.

    Where an answer goes, writing fails as to any file that cannot be written; errors and warnings go nowhere.
    """
    opened = os.open(os.devnull, way)
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)
    return open(number, "w", encoding="utf-8", closefd=False)


@contextmanager
def json_output() -> Iterator[TextIO]:
    """Standard output for JSON: what the encoding lacks is escaped as JSON does it."""
    changed = hasattr(sys.stdout, "reconfigure")
    if changed:
        sys.stdout.reconfigure(errors=_JSON_ERRORS)  # type: ignore[union-attr]
    try:
        yield sys.stdout
    finally:
        if changed:
            sys.stdout.reconfigure(errors=_TEXT_ERRORS)  # type: ignore[union-attr]


def _spelled_out(error: UnicodeError) -> tuple[str | bytes, int]:
    assert isinstance(error, UnicodeEncodeError)
    char = error.object[error.start]
    if "\udc80" <= char <= "\udcff":
        return bytes([ord(char) - 0xDC00]), error.start + 1  # a byte of a file's name that is no text
    return _LOOKALIKES.get(char) or _escape(char), error.start + 1


def _escaped(error: UnicodeError) -> tuple[str | bytes, int]:
    assert isinstance(error, UnicodeEncodeError)
    return _escape(error.object[error.start]), error.start + 1


def _escape(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{int.from_bytes(units[at : at + 2]):04x}" for at in range(0, len(units), 2))


def named_as_file(path: Path) -> bool:
    """Whether someone who names this means a file: its suffix is that of one, and no folder is there."""
    return path.suffix.lower() in _FILES and not path.is_dir()


def chosen_formats(output: Output, always: tuple[Format, ...] = ()) -> tuple[Format, ...]:
    """The formats to write: those asked for, else the command's own; a page when only a place or `--open` is given.

    Raises:
        UsageError: `--format` names no format, or `-o` no folder.
    """
    if str(output.output) == "-":
        raise UsageError("-o - is no folder", hint="--json goes to standard output by itself, xai export -o - as well")
    if output.output is not None and named_as_file(output.output):
        kind = output.output.suffix.lower()[1:]
        raise UsageError(
            f"-o {output.output} is named as a file, and files are written into a folder",
            hint=f"-o {output.output.parent} --format {kind if kind in set(Format) else Format.CSV}",
        )
    wanted = list(always)
    if output.format:
        if unknown := [name for name in output.format if name not in set(Format)]:
            raise UsageError(f"no format {unknown[0]!r}", hint="formats: " + ", ".join(Format))
        wanted = [Format(name) for name in output.format]
    elif not wanted and (output.output or output.open):
        wanted = list(REPORT_FORMATS)
    if output.open and Format.HTML not in wanted:
        wanted.append(Format.HTML)
    return tuple(dict.fromkeys(wanted))


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Show what is meant for users (`UserWarning`) as `warning: ...`; what is meant for developers, not at all."""

    def show(message: Warning | str, *details: Any, **named: Any) -> None:
        from xaicli.render.text import message as line

        del details, named
        erase_status()
        print(line("warning", str(message)), file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("default", UserWarning)
        warnings.filterwarnings("ignore", module=r"torch(\.|$)")
        warnings.showwarning = show
        yield


@contextmanager
def noted() -> Iterator[list[str]]:
    """The notes for users that are shown meanwhile, as they come, for an answer's `warnings`."""
    notes: list[str] = []
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def show(message: Warning | str, *details: Any, **named: Any) -> None:
            notes.append(str(message))
            shown(message, *details, **named)

        warnings.showwarning = show
        yield notes


def _open_page(paths: list[Path]) -> None:
    import webbrowser

    page = next((path for path in paths if path.suffix == ".html"), None)
    if page and not webbrowser.open(page.resolve().as_uri()):
        print(f"no browser to open; the page is {page}", file=sys.stderr)
