"""What people said of samples, brought together: one label a sample, and whatever could not be taken, counted."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, Protocol
from urllib.parse import unquote

import polars as pl

from xaicli.queries.selection import Pair
from xaicli.relabel.marks import Mark, Marks, State
from xaicli.relabel.tasks import coded_id, of_carried, sample_of_picture
from xaicli.tables.labels import Classes, Spelt, class_number, is_row, is_same_number
from xaicli.vocabulary import SAMPLE_ID
from xaicli.words import quoted, unguarded

NO_SAMPLE = "no sample of the run"
DIFFERENT = "its id and its picture are of different samples"
ELSEWHERE = "not recorded where the file says (mode, ds_id)"
SEVERAL_MODES = "recorded in several splits, and the file does not say which: --mode"
SEVERAL_SETS = "recorded in several data sets, and the file does not say which: --ds-id"
SKIPPED = "skipped"
UNTOUCHED = "not labelled yet"
UNKNOWN_LABEL = "a label that the run does not know"
SET_IN_A_TEXT = 'several classes in one text, which is no set: write ["person", "car"]'
NOT_FINITE = "a number that is not finite"
NO_ROW = "a row of 0 and 1, and the run has another number of classes"
EITHER_LABEL = "a label that may be either of several names"
DISAGREE = "people disagree"
OUTVOTED = "outvoted: more people agree on another"
NOT_LOOKED_AT = "not looked at: as recorded, and not checked"
OTHER_FIELD = "of another control or field, which --field would name"
_EXAMPLES = 5
_SAID_AGAIN = "said again by the same person: the last counts"
_SAID_AGAIN_SOMETIME = "said again by the same person, and a time cannot be read: the last in the file counts"
_MILLISECONDS = 1e11
"""A larger number is a time in milliseconds: seconds reach it in the year 5138, milliseconds did in 1973."""
_COMMA = re.compile(r"\s*[+-]?(?:0,\d+|\d+,(?:\d{1,2}|\d{4,}))(?:[eE][+-]?\d+)?\s*")
"""A number whose comma is surely a decimal one."""
_UPLOADED = re.compile(r"[0-9a-f]{6,}-(.+)")
_OF_TOOLS = frozenset({"", "/", "images", "image", "img", "imgs", "data", "upload", "uploads", "files", "default"})
"""Folders that labelling tools keep pictures in, which say nothing of where they came from."""


Sample = tuple[Pair, Any, Any]
"""Where a sample was recorded, its id, and what was recorded of it."""


class Recorded(Protocol):
    """What a run has recorded of samples, that people may correct."""

    def taken(self, mark: Mark, sample: Sample, left: LeftOut, named: str) -> tuple[Any] | None:
        """What a mark says of a sample, as the run would spell it; None where it says nothing, which is counted."""


@dataclass(frozen=True)
class Correction:
    """The label of one sample after people looked at it.

    Attributes:
        pair: Where it was recorded.
        sample_id: The sample.
        label: Its label as the run spells it.
        recorded: What was recorded.
        by: Who gave it, with commas between.
        when: When the last of them did, as the tool writes it.
        votes: How many gave this label, and how many any.
        marks: What people said.
    """

    pair: Pair
    sample_id: Any
    label: Any
    recorded: Any
    by: str
    when: str
    votes: tuple[int, int]
    marks: tuple[Mark, ...] = ()

    @property
    def is_changed(self) -> bool:
        """Whether the recorded label is another."""
        return bool(self.label != self.recorded)


@dataclass
class LeftOut:
    """What was not taken, by reason, with some examples.

    Attributes:
        examples: Some of each reason.
        counts: How many of each.
        as_names: Labels that were taken as names, and may be numbers: by text and the two classes.
        as_sets: Labels that were taken as sets of class numbers, and may be rows of 0 and 1: by text.
    """

    examples: dict[str, list[str]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    as_names: Counter[tuple[str, object, object]] = field(default_factory=Counter)
    as_sets: Counter[str] = field(default_factory=Counter)

    def add(self, reason: str, example: str, n: int = 1) -> None:
        """Count one more, or some."""
        self.counts[reason] += n
        kept = self.examples.setdefault(reason, [])
        if len(kept) < _EXAMPLES and example not in kept:
            kept.append(example)

    def of_none(self, samples: Samples, n_marks: int) -> str:
        """What marks name where all of them are about no sample that is asked about; "" where one is about any."""
        reasons = [reason for reason in (NO_SAMPLE, samples.left_out_by) if self.counts[reason]]
        whole = sum(self.counts[reason] for reason in reasons) == n_marks
        return ", ".join(one for reason in reasons for one in self.examples[reason]) if whole else ""

    def rows(self) -> list[dict[str, Any]]:
        """reason, n and examples, the most frequent first."""
        return [
            {"reason": reason, "n": n, "examples": self.examples[reason]} for reason, n in self.counts.most_common()
        ]


@dataclass(frozen=True)
class Labels:
    """How a run spells labels.

    Attributes:
        dtype: The type of its labels.
        known: The values it knows.
        by_name: What a value may be called.
        given: What the user says that a value is called, too.
        rows_wide: How many classes rows of 0 and 1 have in a run that names none; 0 where no rows tell.
    """

    dtype: pl.DataType
    known: frozenset[Any]
    by_name: Mapping[str, Any]
    given: Mapping[str, Any]
    rows_wide: int = 0

    @property
    def are_sets(self) -> bool:
        """Whether a label is a set of classes."""
        return isinstance(self.dtype, pl.List)

    def of(self, mark: Mark) -> tuple[Any] | str:
        """The label that a mark names, or why there is none."""
        if self.is_row(mark):
            row = _zeros_and_ones(mark)
            is_whole = len(row) == self._width
            return ([place for place, is_there in enumerate(row) if is_there],) if is_whole else NO_ROW
        values: list[Any] = []
        for text in mark.labels:
            meant = self._meant(text, mark)
            if len(meant) != 1:
                if self.are_sets and not meant and self._are_several(text, mark):
                    return SET_IN_A_TEXT
                # What a cell of blanks says, which is no name, is nothing.
                return EITHER_LABEL if meant else UNKNOWN_LABEL if text.strip() else UNTOUCHED
            if self._inner.is_float() and not math.isfinite(meant[0]):
                return NOT_FINITE
            values += meant
        return (sorted(set(values)),) if self.are_sets else (values[0],)

    def is_row(self, mark: Mark) -> bool:
        """Whether a mark is surely a row of 0 and 1, a place for each class."""
        return self.are_sets and is_row(_zeros_and_ones(mark))

    def as_wide_as(self, marks: Sequence[Marks]) -> Labels:
        """The same with as many classes as all rows of 0 and 1 have: a run without names may lack its highest."""
        wide = {len(_zeros_and_ones(mark)) for one in marks for mark in one.marks if self.is_row(mark)}
        if self.by_name or len(wide) != 1 or max(wide) <= self._width:
            return self
        return replace(self, rows_wide=max(wide))

    def may_be_row(self, mark: Mark) -> bool:
        """Whether a mark names each of the run's two classes once, and may as well be a row of 0 and 1."""
        return self.are_sets and self._width == 2 and sorted(_zeros_and_ones(mark)) == [0, 1]

    def rows_told(self, marks: Marks) -> Marks:
        """The marks of a file, those that may be rows of 0 and 1 as what these say where others of the file are."""
        if not any(map(self.is_row, marks.marks)):
            return marks
        own = (
            replace(mark, labels=(str(_zeros_and_ones(mark).index(1)),)) if self.may_be_row(mark) else mark
            for mark in marks.marks
        )
        return replace(marks, marks=tuple(own))

    def decimals_told(self, marks: Marks) -> Marks:
        """The marks of a file, numbers with a decimal comma with a point, where the file surely has such.

        A comma before other than three digits, or after a 0 alone, parts no thousands; and no label of the file has a
        point then.
        """
        texts = [text for mark in marks.marks for text in mark.labels]
        if not self._inner.is_float() or any("." in text for text in texts) or not any(map(_COMMA.fullmatch, texts)):
            return marks

        def told(texts: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(text.replace(",", ".", 1) for text in texts)

        own = (replace(one, labels=told(one.labels), suggested=told(one.suggested)) for one in marks.marks)
        return replace(marks, marks=tuple(own))

    def taken(self, mark: Mark, sample: Sample, left: LeftOut, named: str) -> tuple[Any] | None:
        """The label of a mark; None where it gives none, which is counted."""
        if mark.state in (State.SKIPPED, State.UNTOUCHED):
            left.add(SKIPPED if mark.state is State.SKIPPED else UNTOUCHED, named)
            return None
        if mark.state is State.EMPTY and not (self.are_sets and mark.is_checked):
            left.add("handed in without a label", named)
            return None
        if len(mark.labels) > 1 and not self.are_sets:
            left.add("several labels, and the run has one a sample", f"{named}: {', '.join(mark.labels)}")
            return None
        label = self.of(mark) if mark.labels else ([],)
        if isinstance(label, str):
            left.add(label, named if label == UNTOUCHED else f"{named}: {', '.join(map(quoted, mark.labels))}")
            return None
        if isinstance(sample[2], float) and isinstance(label[0], float) and is_same_number(label[0], sample[2]):
            label = (sample[2],)
        if mark.is_checked is False and label[0] == sample[2]:
            left.add(NOT_LOOKED_AT, named)
            return None
        for text in mark.labels:
            for number in self._classes.instead(text, mark.spelt, mark.called):
                left.as_names[text, self._meant(text, mark)[0], number] += 1
        if self.may_be_row(mark):
            left.as_sets[f"[{', '.join(mark.labels)}]"] += 1
        return label

    def suggested(self, marks: Sequence[Mark]) -> Any:
        """What people were shown as what a label might be; None where no file brings it back."""
        texts = next((mark.suggested for mark in marks if mark.suggested), None)
        label = "" if texts is None else self.of(Mark(None, None, texts))
        return None if isinstance(label, str) else label[0]

    @cached_property
    def _classes(self) -> Classes[Any]:
        """What values may be called; texts are names of their own."""
        own = {value: value for value in self.known if isinstance(value, str)}
        numbers = self.known if self._inner.is_integer() else ()
        return Classes({**own, **self.by_name}, numbers, self.given, are_flags=not self.are_sets)

    @cached_property
    def _width(self) -> int:
        """How many classes the run has, as far as is known: those it names, those it recorded, and those of rows."""
        numbers = [one for one in (*self.known, *self.by_name.values()) if isinstance(one, int)]
        return max(max(numbers, default=-1) + 1, self.rows_wide) if self._inner.is_integer() else 0

    @property
    def _inner(self) -> Any:
        return self.dtype.inner if isinstance(self.dtype, pl.List) else self.dtype

    def _are_several(self, text: str, mark: Mark) -> bool:
        """Whether a text names classes with commas between."""
        parts = text.split(",")
        return len(parts) > 1 and all(len(self._meant(part, mark)) == 1 for part in parts)

    def _meant(self, text: str, mark: Mark) -> tuple[Any, ...]:
        """The value that a text means; none, or several, where it does not say which."""
        meant = self._classes.meant(text, mark.spelt, mark.called)
        if meant or not self._inner.is_float():
            return meant
        try:
            return (float(text),)
        except ValueError:
            return ()


def _zeros_and_ones(mark: Mark) -> list[int]:
    """The numbers of a mark that are all 0 or 1; none for another, and for names."""
    numbers = [class_number(text) for text in mark.labels] if mark.spelt is Spelt.NUMBER else []
    return [one for one in numbers if one is not None] if set(numbers) <= {0, 1} else []


class Samples:
    """The samples of a run by id and by picture.

    Args:
        frames: By (mode, ds_id): sample_id and label.
        paths: (path of the picture, sample id) of every sample that has one.
        limits: The options that leave others of the run out, as they are typed; "" for none.
        left_out: Those others, asked for where a mark is about none of these.
    """

    def __init__(
        self,
        frames: Mapping[Pair, pl.DataFrame],
        paths: Iterable[tuple[Any, Any]],
        *,
        limits: str = "",
        left_out: Callable[[], Samples] | None = None,
    ) -> None:
        self.left_out_by = f"a sample that {limits} leaves out" if limits else ""
        self._left_out = left_out
        self.recorded: dict[str, list[Sample]] = {}
        for pair, frame in frames.items():
            for sample_id, label in frame.select(SAMPLE_ID, "label").iter_rows():
                self.recorded.setdefault(str(sample_id), []).append((pair, sample_id, label))
        self._paths: dict[str, list[str]] = {}
        for path, sample_id in paths:
            self._paths.setdefault(str(path), []).append(str(sample_id))
        self._by_name: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        self._by_folders: dict[str, dict[tuple[str, ...], list[str]]] = {}
        self._shown: dict[tuple[str, tuple[str, ...]], frozenset[str]] = {}
        for path in self._paths:
            last = _parts(path)[-1:]
            for name in last:
                self._by_name.setdefault(name, []).append(path)
                self._by_stem.setdefault(PurePosixPath(name).stem, []).append(path)

    def of(self, mark: Mark) -> Sample | str:
        """(mode, ds_id), id and recorded label of the sample that a mark is about, or why there is none."""
        found = self._of(mark)
        if found not in (NO_SAMPLE, ELSEWHERE) or self._others is None:
            return found
        other = self._others.of(mark)
        if other == NO_SAMPLE:
            return found
        return other if isinstance(other, str) and other not in (SEVERAL_MODES, SEVERAL_SETS) else self.left_out_by

    @cached_property
    def _others(self) -> Samples | None:
        return None if self._left_out is None or not self.left_out_by else self._left_out()

    def _of(self, mark: Mark) -> Sample | str:
        text, fault = self._named(mark)
        if text is None:
            return fault
        found = self.recorded[text]
        mode, ds_id = mark.mode, mark.ds_id
        if not mode and ds_id is None and (made := self._pictured(_of_mark(mark))) is not None and made[2] == text:
            mode, ds_id, _ = made
        own = [one for one in found if (not mode or one[0][0] == mode) and (ds_id is None or one[0][1] == ds_id)]
        if not own:
            return ELSEWHERE
        if len(own) == 1:
            return own[0]
        # An id of one may be another sample in the next.
        return SEVERAL_MODES if len({one[0][0] for one in own}) > 1 else SEVERAL_SETS

    def _named(self, mark: Mark) -> tuple[str | None, str]:
        """The id of the sample that a mark is about, else why that is not known."""
        sample_id = mark.sample_id
        # Nothing written for an id is none where there is a picture, which says more.
        if mark.path is not None and sample_id is not None and not sample_id.strip():
            sample_id = sample_id if sample_id and sample_id in self.recorded else None
        text = None if sample_id is None else self._known(sample_id)
        shown = frozenset[str]()
        if mark.path is not None or mark.is_key:
            shown = self._of_path(_of_mark(mark))
        recorded = [one for one in shown if one in self.recorded]
        only = recorded[0] if len(recorded) == 1 else None
        if mark.is_key:
            if only is not None and mark.path is None and text not in (None, only):
                return None, "its key is the id of one sample and the picture of another"
            # Where pictures are known, a key that is not that of the picture is the tool's own.
            is_own = mark.path is not None and bool(self._paths) and text not in recorded
            return only if only is not None else None if is_own else text, NO_SAMPLE
        # Who is named is meant: an id that nobody has is not made up for by a picture.
        if sample_id is not None:
            return (None, DIFFERENT) if text is not None and shown and text not in shown else (text, NO_SAMPLE)
        return only, "its picture is that of several samples" if len(recorded) > 1 else NO_SAMPLE

    def _known(self, text: str) -> str | None:
        """The id of a sample as the run spells it; None where it may be either of two."""
        if not text:
            return text if text in self.recorded else None
        clean = text.strip()
        if text in self.recorded and of_carried(text) != text and of_carried(text) in self.recorded:
            return None
        whole = clean.removesuffix(".0")  # a spreadsheet makes 7.0 of 7
        # A tool that takes our CSV as it is gives back what keeps a spreadsheet from running =1.
        spellings = text, of_carried(clean), clean, whole, unguarded(text), unguarded(clean)
        return next((one for one in spellings if one in self.recorded and (one or clean)), None)

    def _of_path(self, path: str) -> frozenset[str]:
        """The samples of a picture: those of its very path, else of the paths that end most like it.

        Where only the names agree and both lie in folders of people's own, they are different pictures.

        Returns:
            Their ids, recorded or not: none of a picture of which nothing is known, several where they share one.
        """
        if path in self._paths:
            return frozenset(self._paths[path])
        if (made := self._pictured(path)) is not None:
            return frozenset({made[2]})
        if not self._paths and of_carried(path) in self.recorded:
            return frozenset({of_carried(path)})  # what a sample without a picture is called
        parts = _parts(path)
        if not parts:
            return frozenset()
        uploaded = _UPLOADED.fullmatch(parts[-1])  # Label Studio puts something before the name
        for name, is_name_alone in ((parts[-1], False), (uploaded[1] if uploaded else "", True)):
            ending, longest = self._ends_like(name, _folders(parts))
            if not longest:
                continue
            folder = parts[-2] if len(parts) > 1 else ""
            is_strange = not ending and not is_name_alone and folder not in _OF_TOOLS and not folder.isdecimal()
            if is_strange and len(_parts(longest[0])) > 1:
                return frozenset()
            if (name, ending) not in self._shown:
                self._shown[name, ending] = frozenset(one for known in longest for one in self._paths[known])
            return self._shown[name, ending]
        return frozenset()

    def _pictured(self, path: str) -> tuple[str, str, str] | None:
        """Where the sample of a picture that the export wrote was recorded, and its id; None of another picture."""
        parts = _parts(path)
        made = sample_of_picture(parts[-1]) if parts else None
        if made is None:
            return None
        mode, ds_id, text = made
        return mode, ds_id, text if text in self.recorded else self._long.get(text, text)

    @cached_property
    def _long(self) -> dict[str, str]:
        """The ids that are too long for a file's name, by their digest."""
        return {code: text for text in self.recorded if (code := coded_id(text))[:2] == "_h"}

    def _ends_like(self, name: str, folders: tuple[str, ...]) -> tuple[tuple[str, ...], list[str]]:
        """The paths of a name, or of one with another suffix, that share most last folders, and these folders."""
        if name not in self._by_folders:
            found = self._by_folders[name] = {}
            for path in self._by_name.get(name) or self._by_stem.get(name) or []:
                own = _folders(_parts(path))
                for start in range(len(own) + 1):
                    found.setdefault(own[start:], []).append(path)
        endings = (folders[start:] for start in range(len(folders) + 1))
        ending = next((one for one in endings if one in self._by_folders[name]), ())
        return ending, self._by_folders[name].get(ending, [])


def _of_mark(mark: Mark) -> str:
    """The picture of a mark, else the key that stands for it."""
    return str(mark.sample_id or "") if mark.path is None else mark.path


def _parts(path: str) -> tuple[str, ...]:
    """The parts of a path or address, without what is asked of a server."""
    plain = path.replace("\\", "/")
    served = plain.partition("?d=")[2]
    if not served:
        served = plain.partition("?")[0] if "://" in plain else plain
    return PurePosixPath(unquote(served) if "://" in plain or "?d=" in plain else served).parts


def _folders(parts: Sequence[str]) -> tuple[str, ...]:
    """The folders of a path, without the root."""
    return tuple(part for part in parts[:-1] if part != "/")


def corrections(
    files: Iterable[Marks], samples: Samples, labels: Recorded, *, by: str | None = None
) -> tuple[list[Correction], LeftOut]:
    """One label a sample, by what most people said.

    Of one person the last mark counts; where a tool says which is the ground truth, that alone. Where people disagree
    the label counts that more than half of them gave; without one the sample is left out. A label that is as recorded
    counts where somebody said to have looked, or where the file has no way to say so.

    Args:
        files: The marks of each file.
        samples: The run's samples.
        labels: How the run spells labels.
        by: Only what this person said.

    Returns:
        The corrections in the order in which samples are first named, and what was left out: each mark either counts
        among the votes of a correction, or is left out once; and what stands in controls that are not read.
    """
    left = LeftOut()
    said: dict[tuple[Pair, str], dict[str, tuple[Mark, Any]]] = {}
    recorded: dict[tuple[Pair, str], tuple[Any, Any]] = {}
    for number, marks in enumerate(files):
        for name, n in marks.others:
            left.add(OTHER_FIELD, name, n)
        for mark in marks.marks:
            named = mark.sample_id or mark.path or ("?" if mark.sample_id is None else '""')
            if mark.state is State.UNREADABLE:
                left.add("not what the tool writes", named)
                continue
            if by is not None and mark.by != by and (mark.by or mark.state is not State.UNTOUCHED):
                left.add(f"not by {by}", named)
                continue
            sample = samples.of(mark)
            if isinstance(sample, str):
                left.add(sample, named)
                continue
            label = labels.taken(mark, sample, left, named)
            if label is None:
                continue
            key = sample[0], str(sample[1])
            recorded[key] = sample[1], sample[2]
            person = mark.person or mark.by or f"\0{number}"
            of_sample = said.setdefault(key, {})
            if person in of_sample:
                before = of_sample[person][0].when
                time, earlier = _time(mark.when), _time(before)
                are_told = (time is not None and earlier is not None) or not (mark.when or before)
                left.add(_SAID_AGAIN if are_told else _SAID_AGAIN_SOMETIME, named)
                if time is not None and earlier is not None and time < earlier:
                    continue
            of_sample[person] = mark, label[0]
    return [*_settled(said, recorded, left)], left


def _settled(
    said: Mapping[tuple[Pair, str], dict[str, tuple[Mark, Any]]],
    recorded: Mapping[tuple[Pair, str], tuple[Any, Any]],
    left: LeftOut,
) -> Iterator[Correction]:
    """What each sample's label is after what people said of it, {person: mark and label}; other marks are left out."""
    for key, of_people in said.items():
        sample_id, old = recorded[key]
        if any(mark.is_truth for mark, _ in of_people.values()):
            for person in [person for person, (mark, _) in of_people.items() if not mark.is_truth]:
                left.add("another is marked as the ground truth", f"{sample_id} ({of_people.pop(person)[0].by or '?'})")
        chosen = _agreed([label for _, label in of_people.values()])
        if chosen is None:
            told = ", ".join(f"{mark.by or '?'}: {', '.join(mark.labels)}" for mark, _ in of_people.values())
            for _ in of_people:
                left.add(DISAGREE, f"{sample_id} ({told})")
            continue
        label, votes = chosen
        agreeing = [mark for mark, given in of_people.values() if given == label]
        for mark in (mark for mark, given in of_people.values() if given != label):
            left.add(OUTVOTED, f"{sample_id} ({mark.by or '?'}{': ' if mark.labels else ''}{', '.join(mark.labels)})")
        people = ", ".join(dict.fromkeys(mark.by for mark in agreeing if mark.by))
        when = max((mark.when for mark in agreeing), key=lambda one: (_time(one) is not None, _time(one) or 0.0, one))
        yield Correction(
            key[0], sample_id, label, old, people, when, votes, tuple(mark for mark, _ in of_people.values())
        )


def _time(when: str) -> float | None:
    """A time in seconds since 1970, from ISO 8601 or a number of seconds or milliseconds; None for another.

    A time without a zone is taken for one of UTC.
    """
    try:
        number = float(when)
        return number / 1000 if number > _MILLISECONDS else number if math.isfinite(number) else None
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(when.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _agreed(given: Sequence[Any]) -> tuple[Any, tuple[int, int]] | None:
    """The label that more than half gave, with (how many, of how many); None without one."""
    votes = Counter(repr(label) for label in given)
    text, n = votes.most_common(1)[0]
    if 2 * n <= len(given):
        return None
    return next(label for label in given if repr(label) == text), (n, len(given))
