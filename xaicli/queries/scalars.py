"""Per-step scalars, summaries and custom graphs of one or several runs, smoothed and averaged over groups of runs."""

from __future__ import annotations

import fnmatch
import math
import os
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import polars as pl

from xaicli.answer import Answer, Counts
from xaicli.errors import UsageError, XaiError, unknown
from xaicli.layout import RunLayout, find_runs
from xaicli.location import find_runs_at
from xaicli.queries.recorded import AXIS, KEY, VALUE, LeftOut, is_log, read_log, recorded_scalars
from xaicli.queries.selection import Words, ds_id_words, words
from xaicli.reader import Reader, open_reader
from xaicli.state.published import read_graphs, read_summary
from xaicli.summary import Summary, ValWithError
from xaicli.vocabulary import ATTEMPT, DS_ID, EPOCH, MODE, STEP, Attempts, Mode
from xaicli.words import quoted, spelled, split

RUN, SOURCE, GRAPH, LINE, LOW, HIGH, N, SMOOTHED = "run", "source", "graph", "line", "low", "high", "n", "smoothed"

SCHEMA = {
    RUN: pl.String(),
    SOURCE: pl.String(),
    GRAPH: pl.String(),
    LINE: pl.String(),
    KEY: pl.String(),
    MODE: pl.String(),
    DS_ID: pl.String(),
    AXIS: pl.String(),
    EPOCH: pl.Int32(),
    STEP: pl.Int64(),
    VALUE: pl.Float64(),
    LOW: pl.Float64(),
    HIGH: pl.Float64(),
    N: pl.Int64(),
}

CURVE = (RUN, SOURCE, GRAPH, LINE, KEY, MODE, DS_ID, AXIS)
"""What rows of one curve share."""


def members_of(given: Words | Mapping[str, str | Iterable[str]], runs: Mapping[str, str]) -> dict[str, list[str]]:
    """{name: the runs in it}.

    Args:
        given: The option, or {name: patterns}.
        runs: {run: the name it was recorded under, "" without one}.

    Raises:
        UsageError: An item is no NAME=PATTERN, or one of its patterns matches no run.
    """
    if not given:
        return {}
    if isinstance(given, Mapping):
        items = list(given.items())
    else:
        words = [str(word) for word in ([given] if isinstance(given, str | int) else given)]
        items = [(word.partition("=")[0], word.partition("=")[2]) for word in words]
    groups: dict[str, list[str]] = {}
    for name, patterns in items:
        listed = split(patterns) if isinstance(patterns, str) else list(patterns)
        idle = [pattern for pattern in listed if not any(_matches(run, pattern) for run in runs.items())]
        if not name or not listed or idle:
            # Groups are of several runs: those that somebody keeps for them have no use where one is shown.
            raise _no_group(name, listed, idle, list(runs), refused=("group",) if len(runs) == 1 else ())
        members = [run for run, called in runs.items() if any(_matches((run, called), pattern) for pattern in listed)]
        groups[name] = list(dict.fromkeys([*groups.get(name, []), *members]))
    return groups


def _no_group(
    name: str, listed: Sequence[str], idle: Sequence[str], runs: Sequence[str], refused: tuple[str, ...]
) -> UsageError:
    """What of an item of `--group` matches no run; where that looks like a further group, how to write two."""
    given = f"{name}={','.join(listed)}"
    what = given if len(idle) == len(listed) else f"{given}: {', '.join(map(repr, idle))}"
    said = f"--group {what} {'match' if 1 < len(idle) < len(listed) else 'matches'} no run"
    if not any("=" in pattern for pattern in idle):
        return UsageError(said, hint=f"NAME=PATTERN,...; runs: {', '.join(runs)}", refused=refused)
    groups = [f"{name}={listed[0]}"]
    for pattern in listed[1:]:
        if "=" in pattern and pattern in idle:
            groups.append(pattern)
        else:
            groups[-1] += f",{pattern}"
    options = " ".join(f"--group {shlex.quote(group)}" for group in groups)
    return UsageError(said, hint=f"each group wants an option of its own: {options}", refused=refused)


def _matches(run: tuple[str, str], pattern: str) -> bool:
    path = Path(run[0])
    names = (*run, path.name, path.stem)
    return any(name == pattern or fnmatch.fnmatchcase(name, pattern) for name in names)


def averaged(rows: pl.DataFrame, groups: Mapping[str, Sequence[str]], warnings: list[str]) -> pl.DataFrame:
    """Each group as one run; runs of no group stay as they are."""
    if not groups:
        return rows
    grouped = {run for members in groups.values() for run in members}
    parts = [rows.filter(~pl.col(RUN).is_in(list(grouped)))]
    curve = [name for name in CURVE if name != RUN]
    for name, members in groups.items():
        part = rows.filter(pl.col(RUN).is_in(list(members)))
        # Trainings of different lengths are tested once, at the end: their tests belong together.
        part = part.with_columns(
            pl.when(pl.col(MODE) == Mode.TEST.value)
            .then(pl.col(STEP).max().over(curve))
            .otherwise(pl.col(STEP))
            .alias(STEP)
        )
        # A step is a moment by itself, unless steps start again with the epochs.
        part = part.with_columns((pl.col(STEP).diff() < 0).any().over(CURVE).alias(_OF))
        of_epoch = pl.when(pl.col(_OF).any().over(curve)).then(EPOCH).alias(_OF)
        finite = pl.col(VALUE).filter(pl.col(VALUE).is_finite())
        spread = finite.std(ddof=1)
        means = (
            part.with_columns(of_epoch)
            .group_by([*curve, _OF, STEP])
            .agg(
                pl.col(EPOCH).first(),
                finite.mean().fill_null(math.nan).alias(VALUE),
                (finite.mean() - spread).alias(LOW),
                (finite.mean() + spread).alias(HIGH),
                finite.len().cast(pl.Int64).alias(N),
            )
        )
        if len(members) > 1 and means.filter(pl.col(N) > 1).is_empty():
            warnings.append(f"the runs of group {name} share no step: there is no spread to show")
        ordered = means.sort(*curve, _OF, STEP)
        parts.append(ordered.with_columns(pl.lit(spelled(name)).alias(RUN)).select(list(SCHEMA)))
    return pl.concat(parts)


_LOG_SUFFIX = ".txt"
_OF = "of epoch"


_FOLDERS = ("scalars", "state", "wal", "attempts")
"""Where scalars lie, and what they are judged by."""
_NAMED = 3


def scalars(
    runs: Sequence[str | os.PathLike[str] | RunLayout],
    *,
    key: Words = None,
    mode: Words = None,
    ds_id: Words = None,
    smoothing: float = 0.0,
    group: Words | Mapping[str, str | Iterable[str]] = None,
    attempts: str = Attempts.LAST,
    strict: bool = False,
) -> Answer:
    """Every value over time.

    Args:
        runs: Run directories or addresses, FastEstimator logs (`.txt`), or folders of either.
        key: Only these keys; patterns with `*` and `?` are possible.
        mode: Only these modes, `all`, or `!MODE` for the others.
        ds_id: Only these dataset ids.
        smoothing: Weight of the past in an exponential mean, at least 0 and less than 1, corrected for its start: the
            value at t is the mean of all values up to t with weights smoothing^(t - i).
        group: `NAME=PATTERN,...` items or {name: patterns}: the runs whose path or name matches become one curve, the
            mean with mean -/+ standard deviation (n - 1) over the runs that have the step, and the epoch too where
            steps start again with each.
        attempts: `last` leaves out what a later attempt logged again, `all` counts it: where several attempts of a run
            logged scalars, `line` names them, "attempt 0".
        strict: Fail on a damaged file instead of leaving it out.

    Returns:
        Rows run, source (scalars, summary, graph, log), graph, line, key, mode, ds_id, axis, epoch, step, value, low,
        high, n (runs behind the value), and `smoothed` with smoothing. Non-finite values stay in `value`, are left out
        of means and smoothing, and are counted.

    Raises:
        XaiError: There is no such run, log, key or mode.
        UsageError: `attempts` is no word for them, the smoothing is out of range, or a group matches nothing.
    """
    if not 0 <= smoothing < 1:
        raise UsageError(f"--smoothing must be at least 0 and less than 1, not {smoothing}", hint="0 is none")
    warnings: list[str] = []
    damaged: list[str] = []
    left_out = LeftOut()
    recorded: dict[str, set[str]] = {MODE: set(), DS_ID: set()}
    frames: dict[str, pl.DataFrame] = {}
    called: dict[str, str] = {}
    silent: dict[str, list[str]] = {}
    for place in expanded(runs):
        n_damaged = len(damaged)
        if isinstance(place, RunLayout):
            called[place.described] = place.read_manifest().name or ""
            frames[place.described] = _of_run(place, strict, attempts, damaged, left_out, recorded, warnings)
        else:
            called[str(place)] = ""
            frames[str(place)] = _of_log(place, left_out)
        if frames[name := next(reversed(frames))].is_empty():
            what = "no scalars that can be read" if len(damaged) > n_damaged else "no scalars"
            silent.setdefault(what, []).append(name)
    rows = pl.concat(frames.values())
    where = ", ".join(frames)
    if not rows.height and damaged:
        raise XaiError(
            f"{where} has no scalars that can be read: left out {', '.join(damaged[:_NAMED])}", hint="see: xai doctor"
        )
    if not rows.height:
        raise XaiError(f"{where} has no scalars", hint="log some with run.log({...}) or run.state.write_summary(...)")
    for column, names in recorded.items():
        names |= {*rows[column]}
    every, named = rows, {*(words(key, KEY) or ())} & {*rows[KEY]}
    for column, given, kind in ((KEY, key, "scalar"), (MODE, mode, "mode"), (DS_ID, ds_id_words(ds_id), "ds_id")):
        before, modes = rows[RUN].unique(maintain_order=True), {*rows[MODE]}
        rows = _only(rows, column, given, kind, where, recorded=recorded.get(column, ()))
        kept = set(rows[RUN].unique())
        if gone := [run for run in before if run not in kept]:
            asked = ", ".join(map(quoted, words(given, column) or ()))
            silent[f"no scalar {asked}" if column == KEY else f"no scalars of {kind} {asked}"] = gone
        if column == DS_ID:
            lacking = sorted({*(words(mode, MODE) or ())} & (modes - {*rows[MODE]}))
            asked = ", ".join(map(quoted, ds_id_words(ds_id) or ()))
            warnings += [f"{one} is left out: it has no scalars of ds_id {asked}" for one in lacking]
    warnings += [f"{what} in {_few(of)}" for what, of in silent.items()]
    left = sorted(named - {*rows[KEY]})
    warnings += [f"{name} is left out: its values are of {_places_of(every, name)}" for name in left]
    groups = members_of(group, called)
    rows = averaged(rows, groups, warnings)
    non_finite = int((~rows[VALUE].is_finite()).sum())
    if smoothing:
        rows = rows.with_columns(smooth(VALUE, smoothing).over(CURVE).alias(SMOOTHED))
    warnings += left_out.warnings()
    return Answer(
        command="scalars",
        run=where,
        selection={
            "runs": list(frames),
            "key": rows[KEY].unique().sort().to_list(),
            "mode": rows[MODE].unique().sort().to_list(),
            "ds_id": rows[DS_ID].unique().sort().to_list(),
            "smoothing": smoothing,
            "group": {name: list(members) for name, members in groups.items()},
            "attempts": attempts,
        },
        data=rows,
        counts=Counts(
            rows=rows.height,
            non_finite=non_finite,
            duplicates=left_out.duplicates,
            taken_back=left_out.taken_back,
            damaged=tuple(damaged),
        ),
        warnings=tuple(warnings),
    )


def _places_of(rows: pl.DataFrame, key: str) -> str:
    """Of which modes and data sets a scalar is, in words."""
    places = rows.filter(pl.col(KEY) == key).select(MODE, DS_ID).unique().sort(MODE, DS_ID).rows()
    return ", ".join(" ".join(filter(None, place)) or "no mode" for place in places)


def _few(runs: Sequence[str]) -> str:
    more = len(runs) - _NAMED
    return ", ".join(map(quoted, runs[:_NAMED])) + (f" and {more:,} more" if more > 0 else "")


def custom_graphs(layout: RunLayout) -> dict[str, list[Summary]]:
    """The custom graphs of a run, {name: the summaries overlaid in it}."""
    return read_graphs(layout.state)


def smooth(column: str, weight: float) -> pl.Expr:
    """The exponential mean of a column's finite values; null where the value is not finite."""
    finite = pl.when(pl.col(column).is_finite()).then(pl.col(column))
    return finite.ewm_mean(alpha=1 - weight, adjust=True, ignore_nulls=True)


def run_frame(reader: Reader, left_out: LeftOut | None = None) -> pl.DataFrame:
    """Scalars, summary and custom graphs of one run, in the columns of `SCHEMA`.

    Args:
        reader: The run.
        left_out: As of `recorded_scalars`.
    """
    run = spelled(reader.layout.described)
    reader.note_faults(reader.layout.state)
    rows = recorded_scalars(reader, left_out)
    apart = reader.which_attempts is Attempts.ALL and rows[ATTEMPT].n_unique() > 1
    line = pl.format("attempt {}", ATTEMPT) if apart else pl.lit("")
    recorded = rows.with_columns(
        *(pl.lit(text).alias(name) for name, text in ((RUN, run), (SOURCE, "scalars"), (GRAPH, ""))),
        line.alias(LINE),
        pl.lit(None, pl.Float64).alias(LOW),
        pl.lit(None, pl.Float64).alias(HIGH),
        pl.lit(1, pl.Int64).alias(N),
    )
    summaries = [_of_summary(read_summary(reader.layout.state), run, "summary")]
    for name, lines in custom_graphs(reader.layout).items():
        summaries += [_of_summary(line, run, "graph", name) for line in lines]
    if apart:
        recorded = recorded.sort(KEY, MODE, DS_ID, AXIS, ATTEMPT, maintain_order=True)  # curve by curve
    return pl.concat([recorded.select(list(SCHEMA)).cast(pl.Schema(SCHEMA)), *summaries])


def expanded(runs: Iterable[str | os.PathLike[str] | RunLayout]) -> list[RunLayout | Path]:
    """The runs and the files of logs meant, each once; a folder that is no run stands for those in it.

    Raises:
        XaiError: There is no run at one of them.
    """
    found: list[RunLayout | Path] = []
    for place in runs:
        if isinstance(place, RunLayout):
            found.append(place)
            continue
        path = Path(place)
        is_folder = path.is_dir() and not RunLayout(path).is_run()
        logs = [log for log in sorted(path.glob(f"*{_LOG_SUFFIX}")) if is_log(log)] if is_folder else []
        if path.is_file() and path.suffix == _LOG_SUFFIX:
            found.append(path)
        elif logs:
            found += [*find_runs(path), *logs]
        else:
            found += find_runs_at([place])
    at = {(each.root if isinstance(each, RunLayout) else each).resolve(): each for each in reversed(found)}
    return list(at.values())[::-1]


def _of_run(
    layout: RunLayout,
    strict: bool,
    attempts: str,
    damaged: list[str],
    left_out: LeftOut,
    recorded: Mapping[str, set[str]],
    warnings: list[str],
) -> pl.DataFrame:
    reader = open_reader(layout, strict=strict, attempts=attempts)
    modes = reader.modes()
    recorded[MODE].update(modes)
    recorded[DS_ID].update(ds_id for mode in modes for ds_id in reader.ds_ids(mode))
    of_this = LeftOut()
    frame = run_frame(reader, of_this)
    left_out.add(of_this)
    damaged += [file for file in reader.damaged if file.partition("/")[0] in _FOLDERS or file in reader.faulty]
    warnings += reader.faults
    return frame


def _of_log(path: Path, left_out: LeftOut) -> pl.DataFrame:
    return _of_summary(read_log(path, left_out), str(path), "log")


def _of_summary(summary: Summary, run: str, source: str, graph: str = "") -> pl.DataFrame:
    """The numbers of a summary; texts and the key `epoch` are no curves."""
    line = "" if not graph or summary.name is None else str(summary.name)
    rows = []
    for mode, name, step, value in summary.rows():
        if name == "epoch" or isinstance(value, str) or value is None:
            continue
        key, _, ds_id = name.partition("|")
        band = (value.y_min, value.y_max) if isinstance(value, ValWithError) else (None, None)
        number = float(value)
        rows.append((run, source, graph, line, key, mode or "", ds_id, STEP, None, step, number, *band, 1))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row").sort(KEY, MODE, DS_ID, STEP, maintain_order=True)


def _only(
    rows: pl.DataFrame, column: str, given: Words, kind: str, where: str, *, recorded: Collection[str] = ()
) -> pl.DataFrame:
    """The rows whose column is one of the words: names, `all`, `!name`, or of keys patterns.

    Args:
        rows: Scalars.
        column: key, mode or ds_id.
        given: The words.
        kind: What they name.
        where: The runs.
        recorded: What the runs have by that name, if not in these scalars: one that nobody typed is passed over.

    Raises:
        XaiError: A word means nothing that is there, or nothing is left.
        UsageError: It is a mode, or means what the runs have, but none of the scalars is of it.
    """
    given_words = words(given, "key" if column == KEY else column)
    if given_words is None:
        return rows
    known = rows[column].unique().sort().to_list()
    shown = [quoted(name) for name in known]
    words_of_it = {*Mode, ""} if column == MODE else {""} if column == DS_ID else set()

    def meant(word: str) -> set[str]:
        return {name for name in known if name == word or (column == KEY and fnmatch.fnmatchcase(name, word))}

    wanted: set[str] = set()
    excluded: set[str] = set()
    for word in given_words:
        leaves = word.startswith("!") and word not in known
        name = word[1:] if leaves else word
        found = set(known) if word == "all" and word not in known else meant(name)
        if not found and name not in {*recorded, *words_of_it}:
            raise unknown(kind, name, shown, where=where)
        if not found and not (leaves and column == MODE):
            said = f"no scalars of {kind} {quoted(name)} in {where}"
            is_elsewhere = name in recorded or (column == MODE and not any(recorded))
            refused = (column,) if is_elsewhere else ()
            raise UsageError(said, hint=f"these are of {kind} {', '.join(shown)}", refused=refused)
        if leaves:
            excluded |= found
        else:
            wanted |= found
    chosen = (wanted or set(known)) - excluded
    if not chosen:
        raise XaiError(
            f"no {kind} is left of {', '.join(given_words)} in {where}", hint=f"recorded: {', '.join(shown)}"
        )
    return rows.filter(pl.col(column).is_in(list(chosen)))
