"""The user's words resolved against what the run holds: which rows a question is about."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import polars as pl

from xaicli.errors import UsageError, XaiError, unknown, whole_number
from xaicli.queries.selection import Catalogue, Pair, Selection, Words, ds_id_words, left_out_by, words
from xaicli.tables.labels import in_order_apart
from xaicli.vocabulary import (
    ATTEMPT,
    DS_ID,
    EPOCH,
    LABEL,
    LOSS,
    MODE,
    PROBS,
    RANK,
    SAMPLE_ID,
    STEP,
    Axis,
    Duplicates,
    Engine,
    Mode,
)
from xaicli.words import chosen_names, quoted, ranges, split_pair, split_raw

_NO_GROUPS = frozenset({SAMPLE_ID, MODE, DS_ID, EPOCH, STEP, ATTEMPT, RANK, PROBS, "pass"})
_NAMED = 3
_TABLE = ("table",)
"""What names of rows do not go with where they are none of its own."""
_RANGE = re.compile(r"(-?\d+)-(-?\d+)")


def resolve(
    source: Catalogue,
    *,
    metric: Words = None,
    mode: Words = None,
    ds_id: Words = None,
    epoch: Words = None,
    epoch_frequency: int = 1,
    label_key: str = LABEL,
    label_map: Words | Mapping[str, Any] = None,
    duplicates: str = Duplicates.LAST,
    engine: str = Engine.POLARS,
    spark_remote: str | None = None,
    axis: str = Axis.EPOCH,
    every_metric: bool = False,
) -> Selection:
    """Resolve the user's words; the arguments are the options of the command line.

    Args:
        source: The run, or one of its tables.
        metric: Metrics; default `loss`, else the only one.
        mode: Modes, `all`, or `!MODE` for all but one; default `eval`, and `train` with a warning if there is none.
        ds_id: Dataset ids, or `!ID` for all but one; default all.
        epoch: Numbers, ranges `LO-HI`, `first`, `last` (of each mode and ds_id); default all.
        epoch_frequency: Only epochs divisible by this.
        label_key: The column that groups samples.
        label_map: `NAME=VALUE` items, or {name: value}.
        duplicates: `last`, `all` or `error`.
        engine: `polars`, `duckdb` or `spark`.
        spark_remote: The address of a Spark Connect server; needs `spark`.
        axis: `epoch`, `step` or `pass`: what pictures over time are drawn over.
        every_metric: Without `metric` all there are, if any: for questions about the rows themselves.

    Raises:
        XaiError: A name that the run does not hold; the message offers close ones.
        UsageError: A value that makes no sense.
    """
    epoch_frequency = whole_number("--epoch-frequency", epoch_frequency, least=1, hint="1 takes every epoch")
    chosen_engine: Engine = _one_of(Engine, "--engine", engine)
    if spark_remote and chosen_engine is not Engine.SPARK:
        raise UsageError(
            "--spark-remote needs --engine spark", hint="add --engine spark", refused=("spark_remote",), by=("engine",)
        )
    warnings: list[str] = list(source.warnings)
    named, metrics = words(mode, MODE), words(metric, "metric")
    modes = _modes(source, named, warnings)
    every = _pairs(source, modes, None)
    wanted = ds_id_words(ds_id)
    pairs = _pairs(source, modes, wanted)
    lacking = dict(_lacking(source, modes, named, pairs, wanted))
    warnings += [left_out((mode, ""), f"it has {what}") for mode, what in lacking.items()]
    given = words(epoch, EPOCH)
    epochs = _epochs(source, pairs, given, epoch_frequency)
    # What a question calls the last epoch is the last that it has rows of.
    counting: Duplicates = _one_of(Duplicates, "--duplicates", duplicates)
    met = {pair: source.epochs_met(pair, e, counting) for pair, e in epochs.items()} if source.where else epochs
    emptied = dict(_emptied(source, epochs, met, given, epoch_frequency))
    warnings += [left_out(pair, why) for pair, why in emptied.items()]
    # Where a condition leaves nothing at all, each question says so in its own way.
    kept = tuple(pair for pair in pairs if met[pair]) or tuple(pair for pair in pairs if epochs[pair])
    if not isinstance(label_key, str):
        raise UsageError(f"--label-key is one column, not {label_key!r}", hint="--label-key label")
    if label_key in _NO_GROUPS:
        raise UsageError(
            f"--label-key {label_key} does not group samples",
            hint="columns that do: " + ", ".join(name for name in source.dtypes if name not in _NO_GROUPS),
        )
    if label_key not in source.dtypes and label_key != LABEL:
        refused = ("label_key",) if label_key in source.names_elsewhere("label_key") else ()
        note = source.facts.left_out
        raise unknown("column", label_key, source.dtypes, where=source.described, note=note, refused=refused, by=_TABLE)
    selection = Selection(
        pairs=kept,
        epochs={pair: met[pair] or epochs[pair] for pair in kept},
        metrics=source.metrics if every_metric and metrics is None else _metrics(source, metrics),
        label_key=label_key,
        label_map=named_labels(source, label_key, label_map),
        ds_ids_left_out=tuple(dict.fromkeys(pair[1] for pair in every if pair not in pairs)),
        duplicates=counting,
        epoch_asked=tuple(_meant(given or (), sorted({e for pair in kept for e in source.epochs(*pair)}))),
        epoch_frequency=epoch_frequency,
        engine=chosen_engine,
        spark_remote=spark_remote,
        attempts=source.which_attempts,
        where=source.where.text if source.where else "",
        facts=source.facts.given,
        no_facts=not source.facts.wanted,
        axis=_one_of(Axis, "--axis", axis),
        warnings=tuple(warnings),
        modes_left_out=() if named else tuple(name for name in source.modes() if name not in modes),
        emptied=emptied,
        modes_lacking=lacking,
    )
    return _with_known_labels(source, selection) if selection.label_map else selection


def _with_known_labels(source: Catalogue, selection: Selection) -> Selection:
    """The selection, and what is to be said of the labels that it is limited to.

    Raises:
        UsageError: The label key holds numbers, which have no names.
        XaiError: No row has one of the labels, or no selected row has any of them.
    """
    key, wanted = selection.label_key, list(selection.label_map)
    if source.dtypes[key].is_float():
        raise UsageError(
            f"--label-map names labels, and {key} holds numbers",
            hint=f"--where '{key} < 1.5' limits them",
            refused=("label_map",),
            by=("label_key",),
        )
    selected = source.values(key, selection.epochs, wanted=wanted, duplicates=selection.duplicates)
    absent = [label for label in wanted if label not in selected]
    if not absent:
        return replace(selection, warnings=(*selection.warnings, *_shared_names(source, selection)))
    held = source.values(key, wanted=wanted)
    for label in absent:
        if label not in held:
            known = sorted(source.values(key))
            # Of several = the last one is that between name and value.
            meant = next((one for one in map(str, known) if one.endswith(f"={label}")), "")
            note = f'a value with = in it stands in quotes: NAME="{meant}"' if meant else ""
            shown = [quoted(str(one)) for one in known]
            raise unknown("label", label, shown, where=source.described, note=note)
    limits = left_out_by(source, selection)
    told = f"label{'s' if len(absent) > 1 else ''} {', '.join(str(label) for label in absent)} of --label-map"
    stand = f"{told} stand{'' if len(absent) > 1 else 's'} in {source.described}, but in no row selected"
    if len(absent) == len(wanted):
        raise XaiError(stand, hint=f"left out by {limits}" if limits else "")
    said = f"{stand}: left out by {limits}" if limits else stand
    return replace(selection, warnings=(*selection.warnings, said, *_shared_names(source, selection)))


def _shared_names(source: Catalogue, selection: Selection) -> Iterator[str]:
    """That a label map gives a label the name that the run has for another."""
    names = source.names_of_classes(selection.label_key)
    for label, name in selection.label_map.items():
        others = [n for n, known in enumerate(names) if known == name and n != label and n not in selection.label_map]
        if others:
            yield (
                f"--label-map calls label {label} {name!r}, as the run calls label {others[0]}: "
                f"they read {name} ({label}) and {name} ({others[0]})"
            )


def _one_of(enum: type[Any], option: str, given: str) -> Any:
    try:
        return enum(given)
    except ValueError:
        raise UsageError(
            f"{option} {given!r} is not possible", hint="choose from: " + ", ".join(str(item) for item in enum)
        ) from None


def _metrics(source: Catalogue, given: list[str] | None) -> tuple[str, ...]:
    known = source.metrics
    where = source.described
    if given:
        for name in given:
            if name not in source.askable:
                refused = ("metric",) if name in source.names_elsewhere("metric") else ()
                raise unknown("metric", name, source.askable, where=where, refused=refused, by=_TABLE)
        return tuple(dict.fromkeys(given))
    if LOSS in known:
        return (LOSS,)
    if len(known) == 1:
        return known
    if not known and source.askable:
        return source.askable
    if not known:
        raise XaiError(f"{where} has no metrics", hint="log some with run.log_samples(..., loss=...)", refused=_TABLE)
    raise UsageError(f"which metric? {where} has no loss", hint="--metric " + ", ".join(known), refused=_TABLE)


def _modes(source: Catalogue, given: list[str] | None, warnings: list[str]) -> list[str]:
    known = source.modes()
    where = source.described
    if not known and source.drops:
        reasons = "; ".join(f"{n:,}: {reason}" for reason, n in source.drops.items())
        raise XaiError(f"{where} holds no samples: {sum(source.drops.values()):,} rows were not recorded", hint=reasons)
    if not known and source.damaged:
        left_out = ", ".join(source.damaged[:_NAMED])
        more = f" and {len(source.damaged) - _NAMED:,} more" if len(source.damaged) > _NAMED else ""
        raise XaiError(f"{where} holds no samples that can be read: left out {left_out}{more}", hint="see: xai doctor")
    if not known and source.where:
        raise XaiError(f"{where} has no row that meets --where {source.where.text!r}", hint="leave --where out")
    if not known:
        raise XaiError(
            f"{where} holds no samples",
            hint="log some with run.log_samples(...); xai info says what it holds, xai scalars shows scalars",
        )
    if not given:
        if Mode.EVAL in known:
            return [Mode.EVAL.value]
        chosen = Mode.TRAIN.value if Mode.TRAIN in known else known[0]
        warnings.append(f"the run has no eval rows: showing {chosen}")
        return [chosen]
    elsewhere = source.names_elsewhere(MODE)
    return chosen_names("mode", given, known, allowed={*known, *Mode}, where=where, elsewhere=elsewhere)


def _pairs(source: Catalogue, modes: list[str], given: list[str] | None) -> list[Pair]:
    pairs = [(mode, ds_id) for mode in modes for ds_id in source.ds_ids(mode)]
    if given is None:
        return pairs
    known = list(dict.fromkeys(ds_id for _, ds_id in pairs))
    chosen = chosen_names(
        "ds_id",
        given,
        known,
        allowed=known,
        where=", ".join(word for word in (source.described, " and ".join(filter(None, modes))) if word),
        elsewhere=source.names_elsewhere(DS_ID),
    )
    return [pair for pair in pairs if pair[1] in chosen]


def _lacking(
    source: Catalogue, modes: list[str], named: list[str] | None, pairs: list[Pair], wanted: list[str] | None
) -> Iterator[tuple[str, str]]:
    """Each mode named that has none of the data sets asked for, with what it lacks; of `all` modes those that have it
    are meant.
    """
    there = {mode for mode, _ in pairs}
    for mode in modes:
        if mode in there or mode not in (named or ()):
            continue
        own = source.ds_ids(mode)
        if meant := [word for word in wanted or () if word in {ds_id for _, ds_id in pairs}]:
            yield mode, f"no ds_id {' or '.join(map(repr, meant))}"
        else:
            yield mode, f"no ds_id but {', '.join(map(repr, own))}"


def _epochs(source: Catalogue, pairs: list[Pair], given: list[str] | None, every: int) -> dict[Pair, tuple[int, ...]]:
    recorded = {pair: source.epochs(*pair) for pair in pairs}
    known = sorted({epoch for epochs in recorded.values() for epoch in epochs})
    elsewhere = source.names_elsewhere(EPOCH)
    tests = [epoch_test(word, known, where=source.described, elsewhere=elsewhere) for word in given or ()]
    chosen = {
        pair: tuple(e for e in epochs if e % every == 0 and (not tests or any(test(e, epochs) for test in tests)))
        for pair, epochs in recorded.items()
    }
    if not any(chosen.values()):
        asked = f"no epoch of {', '.join(given)}" if given else "no epoch"
        divisible = f" that is divisible by {every}" if every > 1 else ""
        raise XaiError(
            f"{asked}{divisible} was recorded in {source.described}",
            hint=f"recorded epochs: {', '.join(ranges(known))}",
            refused=("epoch", "epoch_frequency") if any(int(epoch) % every == 0 for epoch in elsewhere) else (),
            by=_TABLE,
        )
    return chosen


def left_out(pair: Pair, why: str) -> str:
    """What is said of a mode and data set asked for that an option empties."""
    return f"{' '.join(filter(None, pair))} is left out: {why}"


def _emptied(
    source: Catalogue,
    epochs: Mapping[Pair, Sequence[int]],
    met: Mapping[Pair, Sequence[int]],
    given: list[str] | None,
    every: int,
) -> Iterator[tuple[Pair, str]]:
    """Why each mode and data set asked for that is not in the answer is not: an option takes it all.

    Args:
        epochs: What is selected of each.
        met: What is left of that by the condition.
    """
    said = [f"--epoch {','.join(given)}"] if given else []
    taking = " with ".join([*said, *([f"--epoch-frequency {every}"] if every > 1 else [])])
    for pair, chosen in epochs.items():
        if not chosen:
            yield pair, f"{taking} takes none of its epochs, {', '.join(ranges(source.epochs(*pair)))}"
        elif source.where and not met[pair]:
            at = " at the epochs selected" if taking else ""
            yield pair, f"none of its rows{at} meets --where {source.where.text!r}"


def epoch_test(
    word: str, known: list[int], *, where: str, elsewhere: Collection[str] = ()
) -> Callable[[int, Sequence[int]], bool]:
    """Whether an epoch is meant by a word, given the epochs of its pair.

    Args:
        word: A number, a range `LO-HI`, `first` or `last`.
        known: The epochs of every pair.
        where: What they were recorded in.
        elsewhere: Epochs that other questions about the run know: one of them that nobody typed is passed over.

    Raises:
        XaiError: No epoch of any pair is meant.
        UsageError: The word is no epoch.
    """
    if word == "first":
        return lambda epoch, epochs: epoch == epochs[0]
    if word == "last":
        return lambda epoch, epochs: epoch == epochs[-1]
    if match := _RANGE.fullmatch(word):
        low, high = int(match[1]), int(match[2])
    else:
        try:
            low = high = int(word)
        except ValueError:
            raise UsageError(
                f"--epoch {word!r} is no epoch", hint="give numbers, ranges LO-HI, first or last"
            ) from None
    if not any(low <= epoch <= high for epoch in known):
        raise XaiError(
            f"there is no epoch {word} in {where}",
            hint=f"recorded epochs: {', '.join(ranges(known))}",
            refused=("epoch",) if any(low <= int(epoch) <= high for epoch in elsewhere) else (),
            by=_TABLE,
        )
    return lambda epoch, _: low <= epoch <= high


def _meant(given: Iterable[str], known: list[int]) -> Iterator[str]:
    """The words for epochs that are not only of what is left out: asked of the rest alone, those would be refused."""
    for word in given:
        with contextlib.suppress(XaiError):
            epoch_test(word, known, where="")
            yield word


def named_labels(source: Catalogue, label_key: str, given: Words | Mapping[str, Any]) -> dict[Any, str]:
    """The {label: name} of a label map as people give it, each label as the run spells it; none of None.

    Raises:
        UsageError: It names nothing, an item is no pair, or a label has two names.
        XaiError: There are no labels, or none can be that.
    """
    named: dict[Any, str] = {}
    for name, value in named_values(given):
        label = _label_value(source, label_key, value)
        if named.setdefault(label, str(name)) != str(name):
            raise UsageError(f"--label-map calls {value} both {named[label]!r} and {name!r}", hint="one name a label")
    return named


def named_values(given: Words | Mapping[str, Any]) -> Sequence[tuple[Any, Any]]:
    """The (name, value) pairs of a label map as people give it; none of None.

    Raises:
        UsageError: It names nothing, or an item is no pair.
    """
    if given is None:
        return []
    if isinstance(given, Mapping):
        # Labels that share a name are given in a list, as an answer tells them.
        items: Sequence[tuple[Any, Any]] = [
            (name, value)
            for name, values in given.items()
            for value in (values if isinstance(values, (list, tuple)) else [values])
        ]
    else:
        typed = split_raw(given) if isinstance(given, str) else words(given, "label_map") or ()
        items = [_name_and_value(word) for word in typed]
    if not items:
        raise UsageError(f"label_map was given, and names nothing: {given!r}", hint="leave it out for all labels")
    return items


def _name_and_value(word: str) -> tuple[str, str]:
    if (pair := split_pair(word)) is None:
        raise UsageError(f"--label-map {word!r} is not NAME=VALUE", hint="--label-map cat=3,dog=5")
    return pair


def _label_value(source: Catalogue, label_key: str, value: Any) -> Any:
    """A label, or a class of a set of them, as the run spells it: an integer, or the class name of one; a number, true
    or false, or text.

    Raises:
        XaiError: There are no labels, or none can be that.
    """
    dtype = source.dtypes.get(label_key)
    if dtype is None:
        raise XaiError(f"{source.described} has no {label_key} for --label-map to name", hint="leave it out")
    names = source.label_names
    while isinstance(dtype, pl.List):
        dtype = cast(pl.DataType, dtype.inner)
    if dtype.is_integer() and str(value) in (apart := in_order_apart(names)):
        return apart.index(str(value))
    if dtype.is_integer() and str(value) in names:
        labels = [label for label, name in enumerate(names) if name == str(value)]
        told = ", ".join(map(str, labels))
        raise UsageError(
            f"--label-map names {value}, and labels {told} of the run are called so",
            hint="give one by its number: " + " or ".join(f"NAME={label}" for label in labels),
        )
    try:
        if dtype.is_integer():
            return int(value)
        if dtype.is_float():
            return float(value)
        if dtype.is_(pl.Boolean()):
            return {"true": True, "1": True, "false": False, "0": False}[str(value).lower()]
    except (TypeError, ValueError, KeyError):
        hint = "" if names else f"{label_key} holds {'whole numbers' if dtype.is_integer() else dtype}"
        found = unknown("label", value, names, where=source.described)
        raise XaiError(found.message, hint=hint or found.hint) from None
    return str(value)
