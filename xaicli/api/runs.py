"""Questions about several runs at once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from xaicli.api.pages import Asked, shown
from xaicli.api.rows import OPENING, RunRows, Select, refuse_objects_alone, refuse_others, refuse_unhonoured
from xaicli.errors import UsageError, XaiError
from xaicli.layout import RunLayout
from xaicli.location import find_runs_at
from xaicli.results import Result
from xaicli.store.objects import is_url, without_credentials

if TYPE_CHECKING:
    from xaicli.queries.listed import Ids
    from xaicli.queries.selection import Pair, Words
    from xaicli.reader import Reader


Runs = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
"""A run directory, an address or an opened run, or a list of them."""
T = TypeVar("T")
_FEWEST = 2
"""Runs that can be compared."""


def compare(
    *runs: Runs,
    max: int = 5,
    min: int = 5,
    ids: Ids = None,
    group: Words | Mapping[str, str | Sequence[str]] = None,
    **select: Unpack[Select],
) -> Result:
    """Several runs side by side: the same metric, labels and samples; which is better, and which samples flipped.

    Args:
        runs: Two run directories, addresses or opened runs or more, one by one or as a list; a folder that is no run
            stands for those in it. Of a folder those are left out, with a warning, that have nothing to compare.
        max: How many samples whose score grew most from the first run to the last.
        min: How many samples whose score fell most.
        ids: Samples to list.
        group: `NAME=PATTERN,...` items or {name: patterns}: the runs of a group are replicates (seeds, say), and groups
            are compared in place of runs.
    """
    from xaicli.diagnosis.paired import paired, unpaired
    from xaicli.queries.compare import compare
    from xaicli.queries.names import with_facts_of_runs
    from xaicli.queries.resolution import resolve
    from xaicli.queries.scalars import members_of
    from xaicli.queries.truth import measured_of_all

    words: dict[str, Any] = dict(select)
    refuse_others(words)
    refuse_unhonoured("compare", words)
    opening = {name: words.pop(name) for name in OPENING if name in words}
    readers, left_out = _comparable(_each(runs), opening, words)
    answer = compare(readers, max=max, min=min, ids=ids, **words)
    selections = [resolve(reader, **words) for reader in readers]
    answer = with_facts_of_runs(answer, readers, selections)
    told = measured_of_all(readers, selections[0].label_key, selections[0].metrics)
    groups = members_of(group, {reader.layout.described: reader.manifest.name or "" for reader in readers})
    differences = paired(readers, groups=groups, **words)
    selection = {**answer.selection, "group": {name: list(members) for name, members in groups.items()}}
    warnings = (*answer.warnings, *told, *left_out, *unpaired(answer, groups, differences))
    answer = replace(answer, selection=selection, warnings=warnings, extra={**answer.extra, "paired": differences})
    return shown(Asked(answer, readers=readers, select=words), readers[0].layout.reports)


def _comparable(
    given: Sequence[str | os.PathLike[str] | RunLayout], opening: Mapping[str, Any], words: Mapping[str, Any]
) -> tuple[list[Reader], list[str]]:
    """The runs that can be compared, which share their facts, and what to say of those in a folder that cannot.

    Of a folder's runs some died before their first batch, or have tables alone: they do not take the others with them.

    Raises:
        XaiError: A run that was named itself cannot be compared, or fewer than two of a folder can.
    """
    from xaicli.queries.resolution import resolve
    from xaicli.queries.truth import hold_classes
    from xaicli.reader.facts import SharedFacts

    paths = [Path(one) for one in given if not isinstance(one, RunLayout)]
    folders = [path for path in paths if path.is_dir() and not RunLayout(path).is_run()]
    left_out: list[str] = []
    refused: list[XaiError] = []

    def in_folder(layout: RunLayout) -> bool:
        return any(folder in layout.root.parents for folder in folders)

    def asked(layout: RunLayout, question: Callable[[], T]) -> T | None:
        try:
            return question()
        except XaiError as error:
            if not in_folder(layout) or opening.get("strict"):
                if error.message.startswith("--where "):  # which another run may have an answer to
                    error.message = f"{layout.described}: {error.message}"
                raise
            refused.append(error)
            why = error.message.partition(": this is answered")[0].replace(layout.described, "it", 1)
            left_out.append(f"{layout.described} is left out: {why}")
            return None

    def opened(layout: RunLayout) -> Reader:
        reader = RunRows(layout).reader(**{name: value for name, value in opening.items() if name != "where"})
        refuse_objects_alone(reader)
        hold_classes(reader, words.get("label_key"))  # each by itself, before it knows what the others do
        return reader

    def selected(reader: Reader) -> tuple[Reader, tuple[Pair, ...]]:
        reader.keep(opening.get("where"))  # which may name a fact that another run knows
        return reader, resolve(reader, **words).pairs if in_folder(reader.layout) else ()

    found = [asked(layout, partial(opened, layout)) for layout in find_runs_at(given)]
    candidates = [reader for reader in found if reader is not None]
    SharedFacts(candidates)
    every = [asked(reader.layout, partial(selected, reader)) for reader in candidates]
    kept = [one for one in every if one is not None]
    if refused and len(kept) < _FEWEST:
        # What is wrong with the question itself is wrong with it in every run.
        raise next((error for error in refused if isinstance(error, UsageError)), refused[-1])
    others = _of_another_pair([pairs for _, pairs in kept])
    for at, pair in others.items():
        place = " ".join(filter(None, pair))
        left_out.append(f"{kept[at][0].layout.described} is left out: it has no rows of {place}")
    readers = [reader for at, (reader, _) in enumerate(kept) if at not in others]
    if len(readers) < len(candidates):  # what is left out says nothing of the samples of the others
        SharedFacts(readers)
        for reader in readers:
            reader.keep(opening.get("where"))
    return readers, left_out


def _of_another_pair(held: Sequence[tuple[Pair, ...]]) -> dict[int, Pair]:
    """Where not all of a folder's runs have a (mode, ds_id) in common: those that lack the most frequent one, and it.

    Args:
        held: What is selected of each run; nothing for one that was named itself.
    """
    found = [set(pairs) for pairs in held if pairs]
    often = Counter(pair for pairs in held for pair in pairs).most_common(1)
    if not often or set.intersection(*found) or often[0][1] + len(held) - len(found) < _FEWEST:
        return {}
    pair = often[0][0]
    return {at: pair for at, pairs in enumerate(held) if pairs and pair not in pairs}


def scalars(
    *runs: Runs,
    key: Words = None,
    mode: Words = None,
    ds_id: Words = None,
    smoothing: float = 0.0,
    group: Words | Mapping[str, str | Sequence[str]] = None,
    attempts: str = "last",
    strict: bool = False,
) -> Result:
    """Per-step scalars, summaries and custom graphs of one or several runs over time.

    Args:
        runs: Run directories, addresses, opened runs or FastEstimator logs (`.txt`), or folders of either, one by one
            or as a list.
        key: Only these scalars; patterns with `*` and `?` are possible.
        mode: Only these modes.
        ds_id: Only these dataset ids.
        smoothing: Weight of the past in an exponential mean, from 0 to below 1.
        group: `NAME=PATTERN,...` items or {name: patterns}: runs shown as one, mean and spread.
        attempts: `last` leaves out what a later attempt logged again, `all` counts it, a line an attempt.
        strict: Fail on a damaged file instead of leaving it out.
    """
    from xaicli.queries.scalars import expanded, scalars

    places = expanded(_each(runs))
    answer = scalars(
        places,
        key=key,
        mode=mode,
        ds_id=ds_id,
        smoothing=smoothing,
        group=group,
        attempts=attempts,
        strict=strict,
    )
    first = places[0]
    if isinstance(first, Path):
        return shown(Asked(answer), first.parent / "reports")
    return shown(Asked(answer, first if len(places) == 1 else None), first.reports)


def _each(runs: Iterable[Runs]) -> list[str | os.PathLike[str] | RunLayout]:
    """Every run by itself, also where a list was given; an opened run as its layout, which has the address."""
    found: list[str | os.PathLike[str]] = []
    for one in runs:
        found += [one] if isinstance(one, str | os.PathLike) else one
    return [one.layout if isinstance(one, RunRows) else one for one in found]


def list_runs(folder: str | os.PathLike[str] = ".") -> Result:
    """The runs at or below a folder.

    Raises:
        UsageError: It is an address.
        XaiError: There is no such folder.
    """
    from xaicli.queries.runs import runs

    if is_url(os.fspath(folder)):
        raise UsageError(
            f"{without_credentials(os.fspath(folder))} is an address, and xai ls looks into folders of this machine",
            hint="xai info ADDRESS shows one run; xai compare and scalars take several addresses",
        )
    answer = runs(Path(folder))
    return shown(Asked(answer), Path(folder) / "reports")
