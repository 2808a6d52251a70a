"""What every question returns: the answer with its report, able to show and save itself in every format."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaicli.answer import Answer
from xaicli.errors import InterruptedWorkError, is_interruption, leaving
from xaicli.files import Written, appearing, local, make_folder, spare, write_whole
from xaicli.progress import doing
from xaicli.vocabulary import Format

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

    from xaicli.render.figure import Pictures
    from xaicli.report.model import Report, Rows

_HINT = "name another folder with -o DIR"


class Result:
    """The answer to a question, shown and saved the same way everywhere: terminal, files, notebook.

    Args:
        answer: What the query returned.
        build: What makes the report; called once, and only when something is to be shown.
        brief: What makes a report good enough for a terminal, where the whole one takes long.
        folder: Where files go when nobody says where.
    """

    def __init__(
        self,
        answer: Answer,
        build: Callable[[], Report],
        *,
        brief: Callable[[], Report] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.answer = answer
        self.folder = folder
        self._build = build
        self._brief = brief
        self._of_files: tuple[str, ...] = ()
        """What was warned of while files were written."""

    @property
    def data(self) -> pl.DataFrame:
        """One row per row of the JSON, columns named as there."""
        return self.answer.data

    @cached_property
    def report(self) -> Report:
        """What there is to say and show."""
        return self._build()

    def figure(self) -> Figure:
        """The first picture as a matplotlib figure; an empty one says why where there is none."""
        from xaicli.render.figure import first_figure

        return first_figure(self.report)

    def html(self, *, no_images: bool = False) -> str:
        """The self-contained page.

        Args:
            no_images: Leave out pictures of samples.
        """
        from xaicli.render.figure import Pictures

        return self._page(Pictures(), no_images=no_images)

    def _page(self, pictures: Pictures, *, no_images: bool) -> str:
        from xaicli.render.page import page

        return page(self.report, self.answer, pictures, no_images=no_images)

    def markdown(self) -> str:
        """The report as Markdown, without pictures."""
        from xaicli.render.markdown import markdown

        return markdown(self.report)

    def to_json(self, outputs: Sequence[str] = ()) -> str:
        """The JSON object of the command line.

        Args:
            outputs: The paths of the files written.
        """
        return "".join(self.json_parts(outputs))

    def json_parts(self, outputs: Sequence[str] = ()) -> Iterator[str]:
        """What `to_json` gives, in parts small enough to forget."""
        from xaicli.render.machine import json_parts

        answer = replace(self.answer, warnings=tuple(dict.fromkeys((*self.answer.warnings, *self._of_files))))
        return json_parts(answer, outputs)

    def save(
        self,
        folder: str | os.PathLike[str],
        formats: Sequence[Format | str] | None = None,
        *,
        no_images: bool = False,
        pictures: bool = False,
    ) -> list[Path]:
        """Write files; each appears complete or not at all.

        Args:
            folder: Where to; made if missing.
            formats: Which kinds of files: html, png, csv, json, md; without it all but md.
            no_images: Leave out pictures of samples.
            pictures: Write each sample's maps as a picture of its own too.

        Returns:
            The paths written, the page first.

        Raises:
            UsageError: The folder is an address.
            UnwrittenError: The folder or some of the files cannot be written; all others are, and the error holds them.
        """
        default = (Format.HTML, Format.PNG, Format.CSV, Format.JSON)
        wanted = {Format(name) for name in (default if formats is None else formats)}
        target = local(folder)
        files = Written()
        with leaving(lambda: self._left(files.paths, self._due(wanted, no_images, pictures), target)):
            self._write(files, target, wanted, no_images=no_images, pictures=pictures)
        files.check(_HINT)
        return files.paths

    def _write(
        self,
        files: Written,
        target: Path,
        wanted: Set[Format],
        *,
        no_images: bool,
        pictures: bool,
    ) -> None:
        """Write the files one by one."""
        spare(target / name for name in self._due(wanted, no_images, pictures))
        with files.noted(target):
            make_folder(target, durable=False)
        files.check(_HINT)
        formerly = self._numbered_before(target) if Format.PNG in wanted else ()
        for name, content in self._files(wanted, no_images, pictures):
            files.add(target / name, partial(write_whole, content=content))
        if Format.CSV in wanted:
            from xaicli.render.machine import csv_parts

            for stem, rows in self.report.tables.items():
                table = rows()
                self.tell_renamed(table, f"{stem}.csv")
                parts = csv_parts(table)
                files.add(target / f"{stem}.csv", partial(_write_parts, parts=parts))
        if Format.JSON in wanted:
            path = target / f"{self.report.json_name or self.report.name}.json"
            parts = self.json_parts([str(written) for written in (*files.paths, path)])
            files.add(path, partial(_write_parts, parts=parts))
        if old := [target / name for name in formerly if target / name not in files.paths]:
            for path in old:
                path.unlink(missing_ok=True)
            shown = ", ".join(path.name for path in old[:3]) + (" and others" if len(old) > 3 else "")
            self._warn(f"removed pictures that the call before wrote of other samples: {shown}")
        if Format.HTML in wanted:
            from xaicli.render.html import link_pages

            with files.noted(target):
                link_pages(target)

    def _left(self, written: Sequence[Path], due: Sequence[str], folder: Path) -> str:
        """What an interrupted `save` leaves, and what not; a file that is there is whole.

        Args:
            written: The files.
            due: The names of all that were to be written.
            folder: Where to.
        """
        from xaicli.report.numbers import count, listed

        names = [path.name for path in written]
        missing = [name for name in due if name not in names]
        older = [name for name in missing if (folder / name).exists()]

        def told(files: Sequence[str], how: str) -> list[str]:
            drawn = [name for name in files if name.endswith(".png")]
            others = [name for name in files if name not in drawn]
            pages = [name for name in others if name.endswith((".html", ".md"))]
            said = pages + ([count(len(drawn), "picture")] if drawn else []) + others[len(pages) :]
            return [f"{listed(said)} {'is' if len(files) == 1 else 'are'} {how}"] if files else []

        begun = f"{listed(names)} {'is' if len(names) == 1 else 'are'} in {folder}"
        absent = told([name for name in missing if name not in older], "not") if names else []
        said = [begun if names else f"nothing is written to {folder}", *absent]
        return ", ".join([*said, *told(older, "there of an earlier call")])

    def _due(self, wanted: Set[Format], no_images: bool, each: bool) -> list[str]:
        """The names of the files that `save` writes, in that order."""
        from xaicli.render.figure import picture_names

        report = self.report
        due = [f"{report.name}.{kind}" for kind in (Format.HTML, Format.MD) if kind in wanted]
        if Format.PNG in wanted:
            due += [f"{stem}.png" for stem in picture_names(report, no_images=no_images, each=each)]
        due += [f"{stem}.csv" for stem in report.tables] if Format.CSV in wanted else []
        return [*due, *([f"{report.json_name or report.name}.json"] if Format.JSON in wanted else [])]

    def show_terminal(self, paths: Sequence[Path] = ()) -> None:
        """Print the report to the terminal, warnings to standard error.

        Args:
            paths: Files written, listed at the end.
        """
        from xaicli.render.terminal import show
        from xaicli.report.page import conditions

        built = "report" in self.__dict__
        report = self._brief() if self._brief and not built else self.report
        show(report, paths, counts=self.answer.counts, conditions=conditions(self.answer.selection))

    def show(self) -> Any:
        """The live page for a notebook: an IPython display object; outside of one, the report is printed."""
        from xaicli.render.notebook import live

        shown = live(self.html())
        if shown is None:
            self.show_terminal()
        return shown

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        """How a notebook displays the result: a picture and static tables, which untrusted notebooks keep."""
        from xaicli.render.notebook import mimebundle

        del include, exclude
        return mimebundle(self.report)

    def __repr__(self) -> str:
        from xaicli.render.terminal import as_text

        return as_text(self._brief() if self._brief else self.report)

    def _numbered_before(self, folder: Path) -> list[str]:
        """The names of pictures that a former answer to this question wrote there by number, as its JSON lists them.

        A number says nothing of a sample: left beside the new ones, they would pass for theirs.
        """
        from xaicli.render.figure import grids

        stems = "|".join(re.escape(grid.name) for grid in grids(self.report))
        ours = re.compile(rf"(?:{stems})-(?:sheet-\d+|\d{{3,}})\.png")
        there = [path.name for path in folder.iterdir() if ours.fullmatch(path.name)] if stems else []
        if not there:  # the JSON of a large answer takes a second to read
            return []
        try:
            former = json.loads((folder / f"{self.report.json_name or self.report.name}.json").read_bytes())
            outputs = former["outputs"] if former["command"] == self.answer.command else ()
            listed = {Path(path).name for path in outputs}
        except (OSError, ValueError, KeyError, TypeError):
            return []
        return sorted(listed.intersection(there))

    def _files(self, wanted: Set[Format], no_images: bool, each: bool) -> Iterator[tuple[str, bytes]]:
        from xaicli.render.figure import Pictures, pictures

        doing("putting the report together")
        report, drawn = self.report, Pictures(png=Format.PNG in wanted)
        if Format.HTML in wanted:
            try:
                page = self._page(drawn, no_images=no_images)
            except BaseException as stopped:
                if not is_interruption(stopped):
                    raise
                # Tables, and the pictures drawn so far, are finished.
                drawn.stop()
                yield f"{report.name}.html", self._page(drawn, no_images=no_images).encode()
                raise InterruptedWorkError(f"{report.name}.html lacks the pictures that were not drawn") from None
            yield f"{report.name}.html", page.encode()
        if Format.MD in wanted:
            yield f"{report.name}.md", self.markdown().encode()
        if Format.PNG in wanted:
            found = pictures(report, drawn, no_images=no_images, each=each)
            yield from ((f"{name}.png", png) for name, png in found)
            from xaicli.render.canvas import what_is_not_drawn

            for said in what_is_not_drawn(drawn.boxes, is_mirrored=drawn.is_mirrored):
                self._warn(said)

    def tell_renamed(self, rows: Rows, file: str) -> None:
        """Warn of facts that a CSV calls otherwise than they are called, since a column of its rows has their name.

        Args:
            rows: What is written.
            file: What the CSV is called.
        """
        from xaicli.render.machine import facts_renamed

        for fact, column in facts_renamed(rows).items():
            self._warn(f"the fact {fact} is called {column} in {file}: a column of these rows has its name")

    def _warn(self, said: str) -> None:
        """Warn of the files, now and in the JSON."""
        warnings.warn(said, stacklevel=4)
        self._of_files = (*(known for known in self._of_files if known != said), said)


def _write_parts(path: Path, parts: Iterable[str]) -> Path:
    """Write a text that comes in parts."""
    with appearing(path) as file:
        file.writelines(part.encode() for part in parts)
    return path
