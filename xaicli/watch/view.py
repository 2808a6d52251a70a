"""A training at one moment as a screen of text, or as one line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from xaicli.render.text import printable as printable_lines
from xaicli.render.text import sparkline, told_apart
from xaicli.report.numbers import count, cut, short, shortened, shorts
from xaicli.vocabulary import HIGH_IS_GOOD
from xaicli.watch.training import Now, Watched
from xaicli.words import percent

if TYPE_CHECKING:
    from rich.console import RenderableType

_NARROW = 60
_QUIET = 60.0
"""Seconds without a row that are worth a word."""


class Sort(StrEnum):
    """How labels are ordered."""

    WORST = "worst"
    CHANGE = "falling behind"
    NAME = "name"


@dataclass(frozen=True)
class Shown:
    """What the keys have chosen.

    Attributes:
        sort: The order of the labels.
        place: The data set whose samples and labels are shown: its number among the places.
        message: A word below it all.
    """

    sort: Sort = Sort.WORST
    place: int = 0
    message: str = ""


def printable(text: str) -> str:
    """A text on one line, without what a terminal would obey."""
    return printable_lines(text.replace("\n", " "))


def line(watched: Watched, *, pace: bool = True) -> str:
    """The training in one line.

    Args:
        watched: The training.
        pace: Whether to say how fast it goes and what is left, which is another thing at every look.
    """
    parts = [_state(watched) + (": there is no row yet" if watched.state == "waiting" else "")]
    parts += filter(None, [watched.lacks])
    for now in watched.places:
        share = f" of {now.n_before:,}" if now.n_before and now.n < now.n_before else ""
        right = "" if now.accuracy is None else f", {percent(now.accuracy, 1)} right"
        parts.append(f"{_where(now)} epoch {now.epoch}: {watched.metric} {_mean(now)} ({now.n:,}{share}{right})")
    if watched.spikes:
        parts.append(f"last spike at step {watched.spikes[0]['step']:,}")
    elif watched.spikes_since:
        parts.append(f"no spike{since(watched)}")
    if pace and watched.rows_per_second:
        parts.append(f"{watched.rows_per_second:,.0f} rows/s")
    if pace and watched.seconds_left is not None:
        parts.append(f"{duration(watched.seconds_left)} left")
    if watched.dropped:
        parts.append(f"{count(watched.dropped, 'row')} dropped")
    return " | ".join(parts)


def since(watched: Watched) -> str:
    """From where on spikes were looked for, as words behind others; "" where that is the start."""
    if not watched.spikes_since:
        return ""
    last = max(watched.spikes_since, key=lambda row: (row["epoch"], row["step"]))
    return f" since epoch {last['epoch']}" + (f", step {last['step']:,}" if last["within_epoch"] else "")


def _state(watched: Watched) -> str:
    return "the training has died" if watched.state == "crashed" else watched.state


def _where(now: Now) -> str:
    return " ".join(part for part in (now.mode, now.ds_id) if part)


def duration(seconds: float) -> str:
    """A time in two units at most: 45 s, 3 min, 2 h 10 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def screen(
    watched: Watched, shown: Shown, *, title: str, width: int, keys: bool, height: int | None = None
) -> RenderableType:
    """The training as a screen.

    Args:
        watched: The training.
        shown: What the keys have chosen.
        title: What the run is called.
        width: Of the terminal, in characters.
        keys: Whether there are any.
        height: Lines of the terminal: tables are cut so that all of them, and the keys, are seen; None for whole ones.
    """
    from rich.console import Group
    from rich.text import Text

    head, end = [_head(watched, title, width)], []
    for warning in watched.warnings[:3]:
        end.append(Text(printable(shortened(warning, max(width * 2, 80))), style="yellow"))
    if shown.message:
        end += [Text(), Text(printable(shown.message), style="bold")]
    if keys:
        hint = "q quit  s sort labels  n next data set  o open the report"
        end += [Text(), Text(hint if width >= _NARROW else "q s n o", style="dim")]
    if not watched.places:
        what = "value" if watched.rows else "row"
        told = watched.lacks or (f"no {what} of a sample was recorded" if watched.is_over else f"no {what} yet")
        head.append(Text(printable(told), style="dim"))
        return Group(*head, *end)
    chosen = shown.place % len(watched.places)
    now = watched.places[chosen]
    own = [row for row in watched.worst if (row["mode"], row["ds_id"]) == (now.mode, now.ds_id)]
    labels = [row for row in watched.labels if (row["mode"], row["ds_id"]) == (now.mode, now.ds_id)]
    if watched.spikes_since and not watched.spikes:
        end.insert(0, Text(f"no spike{since(watched)}", style="dim"))
    tables: list[tuple[int, Callable[[int], Any]]] = [
        (len(watched.places), lambda most: _places(watched, chosen, width, most)),
        (len(own), lambda most: _worst(own, now, watched.metric, width, most)),
        (len(labels), lambda most: _labels(labels, shown.sort, now, watched.metric, width, most)),
        (len(watched.spikes), lambda most: _spikes(watched, width, most)),
    ]
    rows = [n for n, _ in tables]
    if height is not None:
        rows = _fitting(rows, height - _lines([*head, *end], width))
    parts = [part for most, (_, table) in zip(rows, tables, strict=True) if most for part in (Text(), table(most))]
    return Group(*head, *parts, *end)


_BESIDE_ROWS = 3
"""Lines of a table beside its rows: an empty one before it, its head and the rule below."""


def _lines(texts: Sequence[Any], width: int) -> int:
    """How many lines texts take."""
    from rich.console import Console

    console = Console(width=width)
    return sum(len(console.render_lines(text, pad=False)) for text in texts)


def _fitting(rows: Sequence[int], height: int) -> list[int]:
    """How many rows of each table fit into so many lines: of the longest table fewer, of each at least one.

    Where not even that fits, the labels are left out, then the worst samples, then the spikes, the data sets last.
    """
    kept = list(rows)
    while any(kept) and sum(n + _BESIDE_ROWS for n in kept if n) > height:
        longest = max(range(len(kept)), key=lambda place: (kept[place], place))
        if kept[longest] == 1:
            longest = next((place for place in (2, 1, 3) if kept[place]), 0)
        kept[longest] -= 1
    return kept


def _of(most: int, there: int) -> str:
    """What is said of a table that is cut."""
    return f", {most} of {there}" if most < there else ""


def _head(watched: Watched, title: str, width: int) -> RenderableType:
    from rich.text import Text

    styles = {"running": "green", "finished": "bold", "crashed": "bold red", "waiting": "dim"}
    text = Text(no_wrap=width >= _NARROW, overflow="ellipsis")
    text.append(printable(cut(title, max(20, width // 2))), style="bold")
    text.append("  ").append(_state(watched), style=styles.get(watched.state, ""))
    details = [count(watched.rows, "row")] if watched.rows else []
    if not watched.is_over:
        details += [f"{watched.rows_per_second:,.0f}/s"] if watched.rows_per_second is not None else []
        details += [f"{duration(watched.seconds_left)} left"] if watched.seconds_left is not None else []
    for part in details:
        text.append("  ").append(part)
    if watched.dropped:
        text.append("  ").append(f"{watched.dropped:,} dropped", style="bold red")
    if not watched.is_over and (watched.quiet_seconds or 0) > _QUIET:
        text.append("  ").append(f"no new row for {duration(watched.quiet_seconds or 0)}", style="yellow")
    return text


_GAP = 3
"""Characters between columns."""
_HEADING = 12
"""Characters of a heading of numbers that stand back for nothing."""
_LEAST = 10
"""Characters of a name that is still one."""


@dataclass(frozen=True)
class _Numbers:
    """A column of numbers, which are never cut, under a heading, which may be."""

    heading: str
    cells: Sequence[str]

    @property
    def least(self) -> int:
        """How wide its numbers are."""
        return max(map(len, self.cells), default=0)

    @property
    def width(self) -> int:
        """How wide it is before anything beside it is cut."""
        return max(self.least, min(len(self.heading), _HEADING))


def _room(width: int, numbers: Sequence[_Numbers], texts: int = 1) -> int:
    """How many characters columns of numbers leave for those of texts beside them: where few, headings stand back."""
    rest = width - _GAP * (len(numbers) + texts - 1)
    room = rest - sum(column.width for column in numbers)
    return room if room >= _LEAST * texts else max(texts, rest - sum(column.least for column in numbers))


_Texts = tuple[str, Sequence[str], int]
"""A column of texts: its heading, its cells, and how wide it may be."""


def _table(width: int, texts: Sequence[_Texts], numbers: Sequence[_Numbers], beside: Sequence[_Texts] = ()) -> Any:
    """A table within a width: columns of texts, of numbers, and of what stands beside these."""
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False, header_style="dim")
    texts_wide = [min(most, max(map(cell_len, (heading, *cells)))) for heading, cells, most in (*texts, *beside)]
    spare = width - _GAP * (len(texts_wide) + len(numbers) - 1) - sum(texts_wide)
    for (heading, _, _), own in zip(texts, texts_wide, strict=False):
        table.add_column(heading, no_wrap=True, overflow="ellipsis", width=own)
    fits = sum(column.width for column in numbers) <= spare
    widths = [column.width if fits else column.least for column in numbers]
    spare -= sum(widths)
    for column, own in zip(numbers, widths, strict=True):
        more = min(max(len(column.heading) - own, 0), max(spare, 0))
        spare -= more
        table.add_column(column.heading, justify="right", no_wrap=True, overflow="ellipsis", width=own + more)
    for (heading, _, _), own in zip(beside, texts_wide[len(texts) :], strict=True):
        table.add_column(heading, no_wrap=True, overflow="ellipsis", width=own)
    cells = (*(column[1] for column in texts), *(column.cells for column in numbers), *(one[1] for one in beside))
    for row in zip(*cells, strict=True):
        table.add_row(*row)
    return table


def _titled(what: str, where: str, rest: str, room: int) -> str:
    """The title of a table: of the data set as much as there is room for, and nothing where that is too little."""
    left = room - len(f"{what} of {rest}")
    return f"{what} of {cut(where, left)}{rest}" if left >= min(len(where), _LEAST // 2) else f"{what}{rest}"


def _places(watched: Watched, chosen: int, width: int, most: int) -> Any:
    wide = width >= _NARROW
    start = min(chosen, len(watched.places) - most)
    shown = list(enumerate(watched.places))[start : start + most]
    names, epochs, means, changes, shares, courses = [], [], [], [], [], []
    for number, now in shown:
        of = f"/{watched.total_epochs}" if watched.total_epochs and now.mode == "train" else ""
        epochs.append(f"{now.epoch}{f'.{now.turn}' if now.turn else ''}{of}")
        change = None if now.mean is None or now.before is None else now.mean - now.before
        names.append(("> " if number == chosen and len(watched.places) > 1 else "", printable(_where(now))))
        means.append(_mean(now))
        changes.append(_signed(change))
        shares.append(f"{now.n:,}" + (f"/{now.n_before:,}" if now.n_before and now.n < now.n_before else ""))
        courses.append(sparkline([mean for _, _, mean in now.history[-12:]]))
    numbers = [_Numbers("epoch", epochs), _Numbers(watched.metric, means), _Numbers("change", changes)]
    if wide and any(now.accuracy is not None for now in watched.places):
        numbers.append(_Numbers("right", [percent(now.accuracy, 1) for _, now in shown]))
    numbers += [_Numbers("samples", shares)] if wide else []
    course = max(map(len, ("course", *courses)))
    beside = [("course", courses, course)] if wide else []
    if beside and _room(width, numbers, 2) - course < 2 * _LEAST:
        beside = []
    if _room(width, numbers) < _LEAST:
        numbers = [column for column in numbers if column.heading != "change"]
    room = _room(width, numbers, 1 + len(beside)) - (course if beside else 0)
    left = max(room - max(map(len, (mark for mark, _ in names))), 1)
    told = told_apart([name for _, name in names], left, longest=left)
    cells = [mark + told[name] for mark, name in names]
    title = f"data set{_of(most, len(watched.places))}"
    return _table(width, [(title, cells, room)], numbers, beside)


def _mean(now: Now) -> str:
    return short(now.mean, 4) + (f" ({now.non_finite:,} not finite)" if now.non_finite else "")


def _signed(value: float | None) -> str:
    return "" if value is None else ("+" if value > 0 else "") + short(value, 2)


def _worst(every: Sequence[dict[str, Any]], now: Now, metric: str, width: int, most: int) -> Any:
    rows = every[:most]
    values = [_Numbers(metric, shorts([row["value"] for row in rows]))]
    room = _room(width, values, 2)
    texts = ["–" if row["label"] is None else row["name"] or str(row["label"]) for row in rows]
    of_label = max(room // 3, 1)
    names = told_apart(texts, of_label, longest=of_label)
    labels = [names[text] for text in texts]
    room -= max(map(len, ("label"[:of_label], *labels)))
    every_id = [str(row["sample_id"]) for row in rows]
    ids = told_apart(every_id, max(room, 1), longest=max(room, 1))
    title = _titled("worst", printable(_where(now)), _of(most, len(every)), room)
    return _table(width, [(title, [ids[one] for one in every_id], room), ("label", labels, of_label)], values)


def _labels(rows: Sequence[dict[str, Any]], sort: Sort, now: Now, metric: str, width: int, most: int) -> Any:
    order: dict[Sort, Any] = {
        Sort.WORST: lambda _: 0,
        Sort.CHANGE: lambda row: (1 if metric in HIGH_IS_GOOD else -1) * (row["change"] or 0.0),
        Sort.NAME: lambda row: str(row["name"]),
    }
    ordered = sorted(rows, key=order[sort])[:most]
    numbers = [
        _Numbers(metric, shorts([row["mean"] for row in ordered])),
        _Numbers("change", [_signed(row["change"]) for row in ordered]),
    ]
    wide = width >= _NARROW
    if wide:
        usual = _Numbers("usual", shorts([row["usual"] for row in ordered]))
        numbers = [_Numbers("samples", [f"{row['n']:,}" for row in ordered]), *numbers, usual]
    room = _room(width, numbers)
    rest = f", {sort.value}{_of(most, max(now.n_labels, len(rows)))}"
    title = _titled("labels", printable(_where(now)), rest, room if wide else 0)
    every = [str(row["name"]) for row in ordered]
    names = told_apart(every, room, longest=room)
    return _table(width, [(title, [names[name] for name in every], room)], numbers)


def _spikes(watched: Watched, width: int, most: int) -> Any:
    rows = watched.spikes[:most]
    numbers = [
        _Numbers("epoch", [str(row["epoch"]) for row in rows]),
        _Numbers(watched.metric, shorts([row["loss"] for row in rows])),
        _Numbers("robust deviations", ["far out" if row["height"] is None else f"{row['height']:.1f}" for row in rows]),
    ]
    room = _room(width, numbers)
    title = f"spikes{_of(most, max(watched.n_spikes, len(watched.spikes)))}{since(watched)}: step"
    steps = [f"{row['step']:,}" for row in rows]
    # A step is a number, too: it stands at the right of its column, and the title before it gives way.
    own = min(room, max(map(len, (title, *steps))))
    return _table(width, [(title, [step.rjust(own) for step in steps], room)], numbers)
