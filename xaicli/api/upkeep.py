"""What keeps a run in order: fewer files, every checksum verified."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xaicli.answer import Answer, Counts
from xaicli.errors import UsageError
from xaicli.layout import RunLayout
from xaicli.results import Result
from xaicli.words import spelled

if TYPE_CHECKING:
    from xaicli.report.model import Report


def compact(layout: RunLayout, *, grace: float = 600.0) -> Result:
    """Make one file an epoch, sorted by sample; safe beside readers and a running training.

    Args:
        layout: The run.
        grace: Seconds that replaced files stay for programs that read the run at this moment; where none does they are
            removed at once.

    Returns:
        One row per file made: path, parts, rows, bytes_before, bytes.

    Raises:
        XaiError: It is no run.
        UsageError: The run lies at an address: only its copy on this machine would be compacted.
    """
    import polars as pl

    _refuse_address(layout, "compact")
    from xaicli.maintenance.compact import compact as compact_run

    done = compact_run(layout, grace=grace)
    numbers = dict.fromkeys(("parts", "rows", "bytes_before", "bytes"), pl.Int64())
    answer = Answer(
        command="compact",
        run=layout.described,
        selection={"grace": grace, "removed": list(done.removed), "waiting": list(done.waiting)},
        data=pl.DataFrame([_row(file) for file in done.files], schema={"path": pl.String(), **numbers}, orient="row"),
        counts=Counts(rows=sum(file.rows for file in done.files), damaged=done.damaged),
        warnings=tuple(f"left as it is: {reason}" for reason in done.damaged),
    )
    sentence = f"{len(done.files):,} files made, {len(done.removed):,} replaced ones removed"
    if done.waiting:
        sentence += (
            f"; {len(done.waiting):,} more stay for a program that reads the run, such as a notebook or xai watch: "
            "until the next xai compact other tools count their rows twice"
        )
    return _table(answer, "Compaction", f"{sentence}.")


def doctor(layout: RunLayout, *, quarantine: bool = False) -> Result:
    """Verify every checksum of a run; `counts.damaged` of the answer names what is wrong.

    Args:
        layout: The run.
        quarantine: Move damaged files to `quarantine/` in the run, where nothing reads them.

    Returns:
        One row per fault: path, complaint, reason, rows, moved_to.

    Raises:
        XaiError: It is no run.
    """
    import polars as pl

    from xaicli.maintenance.doctor import examine

    if quarantine:
        _refuse_address(layout, "doctor --quarantine")
    found = examine(layout, quarantine=quarantine)
    schema: Any = dict.fromkeys(("path", "complaint", "reason", "rows", "moved_to"), pl.String()) | {"rows": pl.Int64()}
    checked = {name: getattr(found, name) for name in ("files", "bytes", "waiting", "unrecorded")}
    answer = Answer(
        command="doctor",
        run=layout.described,
        selection={**checked, "quarantine": quarantine},
        data=pl.DataFrame([_row(finding) for finding in found.findings], schema=schema, orient="row"),
        counts=Counts(rows=found.rows, damaged=tuple(finding.path for finding in found.findings)),
    )
    sentence = f"{found.files:,} files with {found.rows:,} sample rows, {found.bytes:,} bytes, were verified"
    sentence += f", and {found.waiting:,} rows wait in segments" if found.waiting else ""
    sentence += f": {len(found.findings):,} faults." if found.findings else ": all sound."
    return _table(answer, "Doctor", sentence)


def _refuse_address(layout: RunLayout, what: str) -> None:
    if layout.address:
        raise UsageError(
            f"xai {what} changes files where they lie, and {layout.address} is an address: only the copy here would be",
            hint=f"xai {what} the run's own folder, or a copy: xai sync {layout.address} FOLDER",
        )


def _row(found: object) -> dict[str, Any]:
    """What was found, as a row: a name that is no UTF-8 is spelled out."""
    return {name: spelled(value) if isinstance(value, str) else value for name, value in vars(found).items()}


def _table(answer: Answer, title: str, sentence: str) -> Result:
    def build() -> Report:
        from xaicli.report.page import plain_report

        return plain_report(answer, title=title, sentence=sentence)

    return Result(answer, build)
