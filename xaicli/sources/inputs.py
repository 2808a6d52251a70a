"""What every source of samples gives: ids, model inputs, labels, pictures."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from xaicli.errors import XaiError, unknown
from xaicli.tables.lists import PlacedId, is_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Pair = tuple[str, str]
"""(mode, ds_id): an id of one is another sample in the next."""
NOWHERE: Pair = ("", "")
"""That of what was kept outside of any: it is of every sample with its id that has none of its own."""


@dataclass(frozen=True)
class Words:
    """What the token ids of one input of one sample stand for.

    Attributes:
        texts: The text of each token.
        special: The places of those that a tokenizer put among the words; None where that is not known.
    """

    texts: tuple[str, ...]
    special: frozenset[int] | None = None


@dataclass(frozen=True)
class Inputs:
    """Some samples, ready for a model.

    Attributes:
        sample_id: The samples' ids in order: all integers or all strings.
        arrays: The model inputs by name, in call order, each (sample, ...); the name of a single input may be "".
        label: The samples' labels (integers or strings; lists or arrays of several), or None when the source has none.
        pictures: uint8 (sample, height, width, channel) for display, not normalised; None for what is no picture.
        skipped: One sentence for each sample that could not be read and was left out, and for each doubt about the
            source.
        words: What the tokens stand for, {input: of each sample}, where the source knows it.
        features: What the features are called, where the one input is a row of a table.
        pairs: The (mode, ds_id) of each sample, where the source knows it: one id may be of a sample in each.
    """

    sample_id: list[Any]
    arrays: dict[str, NDArray[Any]]
    label: list[Any] | None = None
    pictures: NDArray[np.uint8] | None = None
    skipped: tuple[str, ...] = ()
    words: Mapping[str, Sequence[Words | None]] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    pairs: Sequence[Pair] | None = None


@dataclass(frozen=True)
class Positions:
    """Samples of a source by where they are among all."""

    at: Sequence[int]


Which = int | Sequence[Any] | Positions
"""Samples of a source: the first so many, those with some ids, or those at some positions."""


class Source(Protocol):
    """Samples that can be asked for by id or by number."""

    @property
    def sample_ids(self) -> Sequence[Any]:
        """The ids of all samples, in the source's order."""

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """The names of integer labels, in order, where the source knows them."""

    @property
    def reads_mode(self) -> bool:
        """Whether the mode that was asked for chose among samples."""

    @property
    def pairs(self) -> Sequence[Pair]:
        """The (mode, ds_id) of each sample of a run, in the order of `sample_ids`, of what was kept outside of any
        ("", ""); empty of other data.
        """

    @property
    def places(self) -> Sequence[Pair]:
        """The (mode, ds_id) that all samples of a run are of, also where what was kept outside of any stands for them;
        empty where that is not known of all, and of other data.
        """

    @property
    def stands_for(self) -> Mapping[Any, Sequence[Pair]]:
        """By its id: the (mode, ds_id) of the samples that an input stands for which was kept without a mode, where
        these are not all with its id.
        """

    def told(self) -> tuple[str, ...]:
        """What a user should know of the source, one sentence each, once samples have been read."""

    def take(self, which: Which) -> Inputs:
        """Read the first `which` readable samples, or those with the given ids, or at the given places, in the given
        order. An id is that of a sample in each (mode, ds_id) that has it, of those that a `PlacedId` says.

        Raises:
            XaiError: An id does not exist, no sample can be read, or (when opened strict) one cannot be read.
        """

    def take_alike(self, which: Which) -> list[tuple[list[int], Inputs]]:
        """The same samples in parts of one shape each, with the places of each part's samples among all of them.

        Raises:
            XaiError: As `take`, or pictures differ in size.
        """


class BadSampleError(Exception):
    """A sample that cannot be read; the text says why."""


@dataclass(frozen=True)
class Sample:
    """One sample: its inputs without a batch axis, its label, its picture (height, width, channel), its words."""

    arrays: Mapping[str, NDArray[Any]]
    label: Any = None
    picture: NDArray[np.uint8] | None = None
    words: Mapping[str, Words] = field(default_factory=dict)


@dataclass(frozen=True)
class IndexedSource:
    """A source whose samples are read one by one, by position.

    Attributes:
        sample_ids: The ids in order; None of a row that has none, which is never read.
        read: Reads the sample at a position; raises BadSampleError.
        name: What to call the source in errors.
        strict: Whether a bad sample is an error; else it is skipped and counted.
        label_names: The names of integer labels.
        notes: What a user should know of the source, one sentence each.
        input_names: The model's inputs in call order, where they are known.
        optional: Those of them that a source need not have.
        late_notes: What is to be said once samples have been read.
        elsewhere: What to try for a sample that this source does not hold, where it is one of few of many.
        left_out: Of each sample that is kept in a run and was not chosen, by its id: of which (mode, ds_id) it is, and
            the options that leave that out.
        reads_mode: Whether the mode that was asked for chose among samples.
        pairs: The (mode, ds_id) of each sample, of inputs kept in a run; ("", "") of those that were kept without.
        places: Those that all samples are of, as `Source.places`.
        stands_for: As `Source.stands_for`.
        features: What the features of a sample are called, each of them a column of a table.
    """

    sample_ids: Sequence[Any]
    read: Callable[[int], Sample]
    name: str
    strict: bool = False
    label_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    input_names: tuple[str, ...] = ()
    optional: frozenset[str] = frozenset()
    late_notes: Callable[[], tuple[str, ...]] = tuple
    elsewhere: str = ""
    left_out: Mapping[Any, Mapping[Pair, str]] = field(default_factory=dict)
    reads_mode: bool = True
    pairs: Sequence[Pair] = ()
    places: Sequence[Pair] = ()
    stands_for: Mapping[Any, Sequence[Pair]] = field(default_factory=dict)
    features: tuple[str, ...] = ()

    def told(self) -> tuple[str, ...]:
        """See `Source.told`."""
        return (*self.notes, *self.late_notes())

    def take(self, which: Which) -> Inputs:
        """Read samples; see `Source.take`."""
        positions, samples, skipped = self._read(which)
        shapes = [_shapes(sample) for sample in samples]
        if len(set(shapes)) > 1:
            raise _bad_shapes(self.name, [self.sample_ids[at] for at in positions], shapes)
        return self._together(positions, samples, skipped)

    def take_alike(self, which: Which) -> list[tuple[list[int], Inputs]]:
        """Read samples, by shape; see `Source.take_alike`."""
        positions, samples, skipped = self._read(which)
        places: dict[Any, list[int]] = {}
        for place, sample in enumerate(samples):
            places.setdefault(_shapes(sample), []).append(place)
        if len(places) > 1 and any(sample.picture is not None for sample in samples):
            ids = [self.sample_ids[at] for at in positions]
            raise _bad_shapes(self.name, ids, [_shapes(sample) for sample in samples])
        labelled = any(sample.label is not None for sample in samples)
        found = []
        for of_shape in places.values():
            part = self._together([positions[i] for i in of_shape], [samples[i] for i in of_shape], skipped)
            if labelled and part.label is None:
                part = replace(part, label=[None] * len(of_shape))
            found.append((of_shape, part))
        return found

    def _read(self, which: Which) -> tuple[list[int], list[Sample], tuple[str, ...]]:
        """The positions of the samples that can be read, these samples, and what to say of the others."""
        skipped: list[str] = []
        wanted: Iterable[int]
        if isinstance(which, int):
            wanted, limit = self._first(which), which
        elif isinstance(which, Positions):
            wanted, limit = which.at, len(which.at)
        else:
            known, missing = self._known(which)
            wanted, limit = known, len(known)
            by_reason: dict[str, list[Any]] = {}
            for one, options in missing.items():
                reason = f"are left out by {options}" if options else f"are not among {self.name}"
                by_reason.setdefault(reason, []).append(one)
            for reason, ids in by_reason.items():
                shown = ", ".join(map(str, ids[:10])) + (", ..." if len(ids) > 10 else "")
                skipped.append(f"{len(ids)} of {len(which)} ids {reason}: {shown}")
        positions: list[int] = []
        samples: list[Sample] = []
        for position in wanted:
            sample_id = self.sample_ids[position]
            try:
                samples.append(self.read(position))
                positions.append(position)
            except BadSampleError as error:
                if self.strict:
                    raise XaiError(
                        f"sample {sample_id} of {self.name}: {error}", hint="without --strict it is skipped"
                    ) from error
                skipped.append(f"sample {sample_id}: {error}")
            if len(samples) == limit:
                break
        if not samples:
            raise XaiError(f"no sample of {self.name} can be read", hint=skipped[0] if skipped else "it holds none")
        return positions, samples, (*self.told(), *skipped)

    def _first(self, n: int) -> Iterator[int]:
        if n < 1:
            raise XaiError(f"{n} samples asked of {self.name}", hint="ask for one or more")
        yield from (place for place, sample_id in enumerate(self.sample_ids) if sample_id is not None)

    def _known(self, ids: Sequence[Any]) -> tuple[list[int], dict[Any, str]]:
        """The positions of those of the ids that are here, each once, and the ids that are not, with the options that
        leave them out; "" of one that is not kept at all.

        Where no (mode, ds_id) are known, an id that comes again is the first.
        """
        positions: dict[Any, list[int]] = {}
        for place, sample_id in enumerate(self.sample_ids):
            if sample_id is not None and (self.pairs or sample_id not in positions):
                positions.setdefault(sample_id, []).append(place)
        sort = type(next(iter(positions), None))
        found: dict[int, None] = {}
        missing: dict[Any, str] = {}
        for given in ids:
            # Ids come as text from a command line.
            sample_id = int(given) if issubclass(sort, int) and re.fullmatch(r"-?\d+", str(given)) else given
            sample_id = str(given) if issubclass(sort, str) else sample_id
            here = positions.get(sample_id, [])
            if isinstance(given, PlacedId) and self.pairs:
                # What was kept outside of any mode may be of the one that is said, where none was kept of that.
                of_it = [at for at in here if is_of(given.place, self.pairs[at])]
                here = of_it or [at for at in here if self.pairs[at][0] == ""]
            if here:
                found |= dict.fromkeys(here)
                continue
            placed = given if isinstance(given, PlacedId) and self.pairs else None
            out = self.left_out.get(sample_id, {})
            by = [
                options for pair, options in out.items() if not placed or pair == NOWHERE or is_of(placed.place, pair)
            ]
            named = " ".join(filter(None, (placed, *placed.place))) if placed else given
            missing[named] = min(by, key=len, default="")
        if missing and (self.strict or not found):
            first, options = next(iter(missing.items()))
            if options:
                raise XaiError(
                    f"sample {first} is among {self.name}, but not among those chosen", hint=f"left out by {options}"
                )
            if self.elsewhere:
                n = len(positions.keys() | self.left_out.keys())
                raise XaiError(f"sample {first} is not among {self.name}, {n:,} samples", hint=self.elsewhere)
            raise unknown("sample", first, list(positions)[:1000], where=self.name)
        return list(found), missing

    def _together(self, positions: list[int], samples: list[Sample], skipped: tuple[str, ...]) -> Inputs:
        import numpy as np

        names = self._ordered(samples[0].arrays)
        arrays = {key: np.stack([sample.arrays[key] for sample in samples]) for key in names}
        labels = [plain(sample.label) for sample in samples]
        pictures = [sample.picture for sample in samples if sample.picture is not None]
        alike = len(pictures) == len(samples) and len({picture.shape for picture in pictures}) == 1
        return Inputs(
            sample_id=[plain(self.sample_ids[at]) for at in positions],
            arrays=arrays,
            label=None if all(label is None for label in labels) else labels,
            pictures=np.stack(pictures) if alike else None,
            skipped=skipped,
            words={
                key: [sample.words.get(key) for sample in samples]
                for key in arrays
                if any(key in sample.words for sample in samples)
            },
            features=self.features,
            pairs=[self.pairs[at] for at in positions] if any(map(any, self.pairs)) else None,
        )

    def _ordered(self, arrays: Mapping[str, NDArray[Any]]) -> list[str]:
        """The names of the arrays in the order in which the model takes them.

        Raises:
            XaiError: Some of the model's inputs are there, others not.
        """
        given = list(arrays)
        known = [name for name in self.input_names if name in arrays]
        if not known:
            return given
        needed = [name for name in self.input_names if name not in self.optional]
        if missing := [name for name in needed if name not in arrays]:
            raise XaiError(
                f"the model takes {', '.join(needed)}; {self.name} has no {missing[0]}",
                hint=f"it has {', '.join(given)}",
            )
        return known


def plain(value: Any) -> Any:
    """An id or label as a Python int, float, str or None, whatever array or tensor scalar it came as.

    Several in a row are a list; a mask of more than one axis is an array.
    """
    if getattr(value, "ndim", 0) == 0:
        return value.item() if hasattr(value, "item") else value
    if value.ndim == 1 and hasattr(value, "tolist"):
        return value.item() if value.shape == (1,) else value.tolist()
    return value.detach().cpu().numpy() if hasattr(value, "detach") else value


Shapes = tuple[tuple[str, tuple[int, ...]], ...]


def _shapes(sample: Sample) -> Shapes:
    """The names of a sample's arrays with their shapes."""
    return tuple(sorted((name, tuple(array.shape)) for name, array in sample.arrays.items()))


def _bad_shapes(name: str, ids: list[Any], shapes: list[Shapes]) -> XaiError:
    usual = max(set(shapes), key=shapes.count)
    position = next(position for position, shape in enumerate(shapes) if shape != usual)
    shown = f"{ids[position]} {_differing(shapes[position], usual)}, others {_differing(usual, shapes[position])}"
    if all(len(shape) in (2, 3) for sample in shapes for _, shape in sample):
        hint = "make pictures alike with --resize"
    else:
        alike = [str(one) for one, shape in zip(ids, shapes, strict=True) if shape == usual][:8]
        hint = f"ask for some of one shape, as --ids {','.join(alike)}, or pad all to one length before they are kept"
    return XaiError(f"samples of {name} differ in shape: {shown}", hint=hint)


def _differing(shapes: Shapes, others: Shapes) -> str:
    """What of some shapes differs from others'."""
    different = [(name, shape) for name, shape in shapes if (name, shape) not in others] or list(shapes)
    return ", ".join(f"{name} {shape}" if len(shapes) > 1 else str(shape) for name, shape in different)
