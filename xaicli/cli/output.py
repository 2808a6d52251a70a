"""Where an answer goes: the terminal, standard output as JSON, and files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from xaicli.cli.options import Output
from xaicli.errors import UsageError, XaiError
from xaicli.vocabulary import Format

if TYPE_CHECKING:
    from xaicli.results import Result

REPORT_FORMATS = (Format.HTML, Format.PNG, Format.CSV, Format.JSON)
"""What the report commands write unless told otherwise."""


def write(result: Result, output: Output, *, folder: Path, always: tuple[Format, ...] = ()) -> None:
    """Hand a result to the user.

    Args:
        result: What a question returned.
        output: The user's output options.
        folder: Where files go unless `--output` says otherwise.
        always: The formats written without being asked for.

    Raises:
        UsageError: `--format` names no format.
        XaiError: The folder inside the run leads elsewhere.
    """
    formats = chosen_formats(output, always)
    if formats and output.output is None and folder.is_symlink():
        # A run from elsewhere must not choose where files are written.
        raise XaiError(f"{folder} is a link to {folder.readlink()}", hint="name the folder to write to with -o DIR")
    paths = result.save(output.output or folder, formats=formats, no_images=output.no_images) if formats else []
    if output.json:
        for part in result.json_parts(outputs=[str(path) for path in paths]):
            print(part, end="")
        print()
    elif output.quiet:
        print("\n".join(str(path) for path in paths), end="\n" if paths else "")
    else:
        result.show_terminal(paths)
    if output.open:
        _open_page(paths)


def chosen_formats(output: Output, always: tuple[Format, ...] = ()) -> tuple[Format, ...]:
    """The formats to write: those asked for, else the command's own; a page when only a place or `--open` is given.

    Raises:
        UsageError: `--format` names no format.
    """
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


def _open_page(paths: list[Path]) -> None:
    import webbrowser

    page = next((path for path in paths if path.suffix == ".html"), None)
    if page and not webbrowser.open(page.resolve().as_uri()):
        print(f"no browser to open; the page is {page}", file=sys.stderr)
