"""`xai import`: a run of another program as a run directory, with what was not taken counted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from xaicli.answer import Answer, Counts
from xaicli.errors import UsageError, XaiError, leaving, unknown
from xaicli.extensions import IMPORTERS, Extension, extensions
from xaicli.files import write_whole
from xaicli.importers.recorded import Recorded
from xaicli.layout import RunLayout
from xaicli.recorder.run import Run
from xaicli.recorder.scalars import AXES
from xaicli.report.numbers import count, left
from xaicli.report.page import plain_report
from xaicli.results import Result


@dataclass(frozen=True)
class _Chosen:
    """The importer of a source, and what of other packages failed when it was asked whether it reads it."""

    name: str
    importer: Any
    warnings: tuple[str, ...]


def import_run(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    kind: str | None = None,
    run: str | None = None,
) -> Result:
    """Read what another program recorded, into a new run directory.

    Of a source with several runs each becomes a run directory of its name within `output`.

    Args:
        source: A file or folder of TensorBoard, W&B (offline), trackio, CSV, or of what another package imports.
        output: The run directory to make; `runs/<name of the run>` when None.
        kind: Which importer reads it; the one that knows it when None.
        run: Only the run of that name.

    Returns:
        A row for each run: run (the directory), name, kind, scalars (values), keys (of scalars), samples (rows),
        dropped, left_out (what of the source is not in the run, in words), problem (why there is no run; else null).

    Raises:
        XaiError: Nothing reads the source, no run of it can be read, or a run directory exists already.
        UsageError: There is no such importer, or several that read the source.
    """
    path = Path(source)
    if not path.exists():
        raise XaiError(f"{path} does not exist", hint="name a file or folder that another tracker wrote")
    chosen = _chosen(path, kind)
    found = _found(path, chosen)
    names = [one.name for one in found]
    if not found:
        raise XaiError(f"{path} holds no run of {chosen.name}")
    if run is not None:
        found = [one for one in found if one.name == run]
        if not found:
            raise unknown("run", run, names, where=str(path))
    parent = Path(output) if output is not None else Path("runs")
    alone = len(found) == 1 and output is not None
    folders = [parent] if alone else list(_folders(parent, found))
    if taken := [str(folder) for folder in folders if RunLayout(folder).is_run()]:
        raise XaiError(f"{', '.join(taken)} holds a run already", hint="-o names another folder")
    rows: list[dict[str, Any]] = []
    warnings, problems = list(chosen.warnings), []
    for one, folder in zip(found, folders, strict=True):
        try:
            with leaving(lambda: left([row["run"] for row in rows if row["run"]], [*map(str, folders[len(rows) :])])):
                row = _written(one, folder, chosen.name, path)
        except Exception as error:
            problems.append(error)
            reason = str(error) if isinstance(error, XaiError) else f"{type(error).__name__}: {error}"
            rows.append(dict.fromkeys(_SCHEMA) | {"name": one.name, "kind": chosen.name, "problem": reason})
            warnings.append(f"{one.name} is not imported: {reason}")
            continue
        warnings += [f"{one.name}: {text}" for text in one.notes]
        if row["left_out"]:
            warnings.append(f"{one.name}: not imported: {row['left_out']}")
        if row["dropped"]:
            warnings.append(f"{one.name}: {row['dropped']:,} values or rows could not be kept: see xai info {folder}")
        rows.append(row)
    if len(problems) == len(rows):
        raise problems[0]
    made = [row for row in rows if row["run"] is not None]
    answer = Answer(
        command="import",
        run=str(parent if alone else rows[0]["run"] if len(rows) == 1 else parent),
        selection={"source": str(path), "kind": chosen.name, "run": run, "runs": [row["run"] for row in made]},
        data=pl.DataFrame(rows, schema=_SCHEMA),
        counts=Counts(rows=sum(row["samples"] for row in made), dropped=sum(row["dropped"] for row in made)),
        warnings=tuple(warnings),
    )
    return Result(answer, lambda: plain_report(answer, title="Imported runs", sentence=_sentence(made, len(problems))))


_SCHEMA = {
    "run": pl.String,
    "name": pl.String,
    "kind": pl.String,
    "scalars": pl.Int64,
    "keys": pl.Int64,
    "samples": pl.Int64,
    "dropped": pl.Int64,
    "left_out": pl.String,
    "problem": pl.String,
}


def _sentence(rows: list[dict[str, Any]], failed: int) -> str:
    scalars, samples = sum(row["scalars"] for row in rows), sum(row["samples"] for row in rows)
    kept = f"{count(scalars, 'value')} over time and {count(samples, 'row')} of samples"
    missing = f"; {count(failed, 'run')} could not be imported" if failed else ""
    return f"{kept}, in {rows[0]['run'] if len(rows) == 1 else f'{len(rows):,} runs'}{missing}."


def _found(path: Path, chosen: _Chosen) -> list[Recorded]:
    """The runs of the source; those before the place where an importer breaks off are taken, and that is one more."""
    found: list[Recorded] = []
    try:
        for one in chosen.importer.runs(path):
            found += [one]
    except Exception as error:
        if not found:
            raise
        reason = str(error) if isinstance(error, XaiError) else f"{type(error).__name__}: {error}"
        problem = XaiError(f"the importer {chosen.name} broke off behind {count(len(found), 'run')}: {reason}")
        found.append(Recorded(f"behind {found[-1].name}", problem=problem))
    return found


def _chosen(path: Path, kind: str | None) -> _Chosen:
    """
    Raises:
        XaiError: Nothing reads the source.
        UsageError: There is no such importer, or several read it.
    """
    known = extensions(IMPORTERS)
    if kind is not None:
        if kind not in known:
            raise UsageError(str(unknown("importer", kind, known)), hint=f"known: {', '.join(known)}")
        return _Chosen(kind, _made(known[kind]), ())
    readers: dict[str, Any] = {}
    warnings = []
    for name, extension in known.items():
        try:
            importer = _made(extension)
            if importer.reads(path):
                readers[name] = importer
        except Exception as error:
            if extension.is_ours:
                raise
            reason = str(error) if isinstance(error, XaiError) else f"{type(error).__name__}: {error}"
            warnings.append(f"the importer {name} of the package {extension.package} was not asked: {reason}")
    if not readers:
        raise XaiError(f"nothing reads {path}", hint=f"importers: {', '.join(known)}; --from NAME says which")
    if len(readers) > 1:
        raise UsageError(f"{path} can be read as {' or '.join(readers)}", hint=f"--from {next(iter(readers))}")
    name, importer = next(iter(readers.items()))
    return _Chosen(name, importer, tuple(warnings))


def _made(extension: Extension) -> Any:
    return extension.load()()


def _folders(parent: Path, found: list[Recorded]) -> Iterator[Path]:
    """A folder within the parent for each run, of its name as far as that is one."""
    taken: set[str] = set()
    for number, one in enumerate(found, start=1):
        name = "-".join(part for part in one.name.replace("\\", "/").split("/") if part.strip(".")) or f"run-{number}"
        name = "".join(c if c.isprintable() and c not in '<>:"|?*' else "_" for c in name)
        while name in taken:
            name += f"-{number}"
        taken.add(name)
        yield parent / name


def _written(one: Recorded, folder: Path, kind: str, source: Path) -> dict[str, Any]:
    """Record a run into a new directory, which is removed again where the source breaks off with an error."""
    if one.problem is not None:
        raise one.problem
    begun = not folder.exists()
    before = set() if begun else set(folder.iterdir())
    try:
        with Run(folder, name=one.name, config=one.config, resume="never", rank=0, float64=one.float64) as run:
            scalars = 0
            keys: set[str] = set()
            for values in one.scalars:
                own = set(values) - set(AXES)
                scalars, keys = scalars + len(own), keys | own
                run.log(dict(values))
            for batch in one.samples:
                run.log_samples(**batch)
        stats = run.stats()
    except BaseException:
        for path in [folder] if begun else set(folder.iterdir()) - before:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
        raise
    layout = RunLayout(folder)
    # Packages, git and machine are those of the import, not of the training.
    environment = {"imported": {"from": str(source.absolute()), "run": one.name, "kind": kind}}
    manifest = replace(layout.read_manifest(), environment=environment)
    write_whole(layout.manifest, manifest.to_json().encode(), durable=True)
    return {
        "run": str(folder),
        "name": one.name,
        "kind": kind,
        "scalars": scalars,
        "keys": len(keys),
        "samples": stats["rows_stored"],
        "dropped": stats["rows_dropped"] + stats["records_dropped"],
        "left_out": ", ".join(f"{n:,} {what}" for what, n in one.left_out.items()),
        "problem": None,
    }
