"""Where a run is: a directory, one found nearby, or an address in an object store, read through a local mirror."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from xaicli.errors import UsageError, XaiError
from xaicli.layout import RunLayout, find_runs, not_a_run
from xaicli.store.objects import Store, is_url, mirror_folder, without_credentials
from xaicli.store.sync import mirror


def find_run(given: str | os.PathLike[str] | None) -> RunLayout:
    """The run a question is about.

    A run at an address is mirrored below the user's cache folder: only files that are new or changed there travel.

    Args:
        given: A run directory or an address (`s3://bucket/run`); without it `$XAI_RUN`, the current directory if it is
            a run, or the newest run below `./runs`.

    Raises:
        XaiError: There is no run at the place, none to be found, or the store cannot be reached.
    """
    place = str(os.environ.get("XAI_RUN") or "" if given is None else given)
    if not is_url(place):
        return find_local_run(given)
    layout = RunLayout(mirror_folder(place), address=without_credentials(place))
    mirror(Store(place), layout.root)
    if not layout.is_run():
        raise XaiError(
            f"there is no run at {layout.address}", hint=f"one is put there by: xai sync FOLDER {layout.address}"
        )
    return layout


def find_runs_at(given: Iterable[str | os.PathLike[str] | RunLayout]) -> list[RunLayout]:
    """The runs meant by paths, addresses and layouts; a folder that is no run stands for those in it not named beside.

    Raises:
        XaiError: There is no run at one of them.
    """
    found: list[tuple[RunLayout, bool]] = []
    for place in given:
        if isinstance(place, RunLayout):
            found.append((place, True))
        elif is_url(os.fspath(place)) or _is_run(RunLayout(Path(place))) or not Path(place).is_dir():
            found.append((find_run(place), True))
        elif below := find_runs(Path(place)):
            found += [(layout, False) for layout in below]
        else:
            raise not_a_run(Path(place))
    # A run that is named twice is asked for twice: held against itself, nothing has changed.
    taken = {layout.root.resolve() for layout, is_named in found if is_named}
    kept: list[RunLayout] = []
    for layout, is_named in reversed(found):
        root = layout.root.resolve()
        if is_named or root not in taken:
            kept.append(layout)
        taken.add(root)
    return kept[::-1]


def find_local_run(given: str | os.PathLike[str] | None) -> RunLayout:
    """The run a command is about.

    Args:
        given: The user's path; without it `$XAI_RUN`, the current directory if it is a run, or the newest run below
            `./runs`.

    Raises:
        XaiError: There is no run at the path, or none to be found.
    """
    if given is not None and not os.fspath(given).strip():
        raise UsageError(
            f"{given!r} names no run: is the variable that names it unset?",
            hint="leave it out for the newest run below ./runs",
        )
    given = given or os.environ.get("XAI_RUN")
    if given:
        layout = RunLayout(Path(given))
        if not _is_run(layout):
            raise not_a_run(layout.root)
        return layout
    here = RunLayout(Path())
    if here.is_run():
        return here
    runs = find_runs(Path("runs"))
    if not runs:
        raise XaiError(
            "no run given and none found: the current folder is no run and ./runs holds none",
            hint="name a run directory, set XAI_RUN, or make one with: xai demo",
        )
    return max(runs, key=lambda run: (run.manifest.stat().st_mtime_ns, str(run.root)))


def _is_run(layout: RunLayout) -> bool:
    """Whether a folder that somebody named holds a run.

    Raises:
        XaiError: No folder can have such a name.
    """
    try:
        return layout.is_run()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise XaiError(
            f"the name {str(layout.root)[:40]}... of {len(str(layout.root)):,} characters is too long for a folder",
            hint="list the runs below a folder with: xai ls FOLDER",
        ) from None
