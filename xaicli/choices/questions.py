"""What is asked about the next training: `select`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from xaicli.answer import Answer
from xaicli.choices.candidates import (
    Ranked,
    all_finite,
    is_end_known,
    is_high_good,
    k_centres,
    ranked,
    score_column,
    with_columns,
)
from xaicli.choices.groups import Groups, draw, draws_of, evenly, grouped
from xaicli.choices.rules import Choice, Rule, refuse_unused
from xaicli.dynamics.computed import LEFT_OUT, MEMORISED_TOLD, Statistics, compute
from xaicli.dynamics.suspects import every_suspect
from xaicli.errors import UsageError, XaiError
from xaicli.queries.embeddings import Vectors, kept_vectors
from xaicli.queries.listed import Ids, listed, refuse_unknown
from xaicli.queries.names import LabelNames, named
from xaicli.queries.samples import LAST
from xaicli.queries.scores import SCORE, extremes
from xaicli.queries.selection import Pair, Selection, with_note_of_modes
from xaicli.queries.tasks import are_texts, by_fact
from xaicli.reader import Reader
from xaicli.reader.facts import Facts
from xaicli.reader.lazy import taken_back_of
from xaicli.vocabulary import DS_ID, EPOCH, LABEL, MODE, SAMPLE_ID, Mode
from xaicli.words import percent

_WORST = 20
_MOST_VALUES = 50
_PRONE = frozenset({Rule.HARDEST, Rule.AMBIGUOUS, Rule.FORGOTTEN, Rule.SQL})
"""Rules that like wrong labels, or may, as a condition does; a draw has them as often as the data does."""
_DOUBTING = _PRONE | {Rule.SUSPECTS, Rule.LABEL_ISSUES}
"""Rules that list suspects, or say how many are among the chosen: what hides these is told with them alone."""


@dataclass(frozen=True)
class Wanted:
    """What is asked for, beside the rows: the options of `select`.

    Attributes:
        choice: The rule and the number.
        stat: The score of a sample.
        complete_only: Leave out samples without a finite value in the last epoch.
        table: The metrics table that holds the embeddings of `diverse`.
        column: Its columns of vectors.
        split: Its split; None for the one that a mode or data set has.
        ids: The samples to choose from; all when None.
    """

    choice: Choice
    stat: str = "last"
    complete_only: bool = False
    table: str = "metrics"
    column: Sequence[str] | str | None = None
    split: str | None = None
    ids: Ids = None


def select(reader: Reader, selection: Selection, wanted: Wanted) -> Answer:
    """The samples that a rule chooses of each (mode, ds_id), and as many drawn at random.

    Args:
        reader: The run.
        selection: Which rows; the first metric is what samples are hard by, the label key what they are shared out by.
        wanted: What is asked for.

    Returns:
        Rows mode, ds_id, sample_id, label, rank (from 1), score, weight, stale, reason, suggested_label: the chosen in
        the order of the rule, each once; with a `weight` every sample, those not chosen after them with weight 1 and
        without a rank, or with weight 0 where all are balanced and they are in no group. Further
        keys, rows with mode and ds_id: `random`, as many drawn at random (of each label as many
        where the number is one a label); `chosen`, how many were asked for, are there and were chosen; `mix`, the
        values of the label and of facts among all, the chosen and those drawn; `not_mixed`, the facts of more than 50
        values, and how many these are; `left_out`, the worst not chosen; `embeddings`, of which split and epoch those
        of `diverse` are.

    Raises:
        XaiError: The run lacks what the rule looks at.
        UsageError: Options that make no sense for the rule.
    """
    refuse_unused(wanted.choice, stat=wanted.stat, metrics=selection.metrics)
    facts = reader.facts
    found = compute(reader, selection, jumps=wanted.stat.startswith("rank_jump"))
    # Nobody asked for the statistics that are missing; a rule that needs one says so itself.
    unasked = (LEFT_OUT,) if wanted.choice.rule in _DOUBTING else (LEFT_OUT, MEMORISED_TOLD)
    warnings = [warning for warning in found.warnings if not any(words in warning for words in unasked)]
    if wanted.ids is not None:
        given, known = (
            listed(reader, wanted.ids),
            {pair: set(found.frames[pair][SAMPLE_ID]) for pair in selection.pairs},
        )
        warnings += given.not_in(selection.pairs)
        given.refuse_absent(known)
        refuse_unknown(reader, selection, given.within(selection.pairs), set().union(*known.values()))
    parts: list[pl.DataFrame] = []
    drawn: list[pl.DataFrame] = []
    extra: dict[str, list[dict[str, Any]]] = {"chosen": [], "mix": [], "not_mixed": [], "left_out": []}
    if wanted.choice.rule is Rule.DIVERSE:
        extra["embeddings"] = []
    for pair in selection.pairs:
        one = _Pair(reader, selection, wanted, pair, found, facts)
        parts.append(one.rows())
        drawn.append(one.random())
        warnings += one.warnings
        for key, rows in one.beside().items():
            extra[key] += [{MODE: pair[0], DS_ID: pair[1], **row} for row in rows]
    choice, counts = wanted.choice, found.counts(reader)
    taken_back = taken_back_of(reader, wanted.table) if choice.rule is Rule.DIVERSE else ()
    warnings += map(str, taken_back)
    options = {
        "rule": choice.named,
        **{name: getattr(choice, name) for name in ("n", "share", "per_label", "by", "weight", "seed")},
        "stat": wanted.stat,
        "complete_only": wanted.complete_only,
        **(
            {"table": wanted.table, "column": wanted.column, "split": wanted.split}
            if choice.rule is Rule.DIVERSE
            else {}
        ),
    }
    return Answer(
        command="select",
        run=reader.layout.described,
        selection={**selection.as_dict(), **options},
        data=pl.concat(parts, how="vertical_relaxed"),
        counts=replace(counts, taken_back=(counts.taken_back or 0) + sum(taken.rows for taken in taken_back)),
        warnings=tuple(dict.fromkeys(warnings)),
        extra={"random": pl.concat(drawn, how="vertical_relaxed"), **extra},
    )


def with_note_for_training(selection: Selection) -> Selection:
    """The selection with a warning where nobody said which mode, and a training takes samples of another."""
    if Mode.TRAIN not in selection.modes_left_out:
        return with_note_of_modes(selection)
    said = f"chosen from {', '.join(selection.modes)}, the default; a training takes samples of train: --mode train"
    return replace(selection, warnings=(*selection.warnings, said))


class _Pair:
    """One (mode, ds_id): its candidates, those chosen and those drawn."""

    def __init__(
        self, reader: Reader, selection: Selection, wanted: Wanted, pair: Pair, found: Statistics, facts: Facts
    ) -> None:
        self.reader, self.selection, self.pair, self.found, self.facts = reader, selection, pair, found, facts
        self.wanted, self.choice = wanted, wanted.choice
        self.where = " ".join(filter(None, pair))
        self.warnings: list[str] = []
        self.embeddings: list[dict[str, Any]] = []
        self.names = LabelNames.of(reader, selection)
        frame = found.frames[pair]
        self.stale_left_out = int(frame["stale"].sum()) if wanted.complete_only else 0
        self.frame = frame.filter(~pl.col("stale")) if wanted.complete_only else frame
        if wanted.ids is not None:
            self.frame = self.frame.filter(pl.col(SAMPLE_ID).is_in(listed(reader, wanted.ids).of(pair)))
        self._of_label: Groups | None = None
        self.groups = self._groups(selection.label_key) if self.choice.per_label else None
        self.by = self._groups(self.choice.by or selection.label_key) if self.choice.rule is Rule.BALANCED else None
        self.ranked = self._ranked()
        self.chosen = self._chosen(self.ranked.rows)
        self.drawn = self._drawn()
        self._tell()

    def _groups(self, by: str) -> Groups:
        """The candidates by a column or fact.

        Raises:
            XaiError: There is none, or no sample has a value of it.
        """
        is_label = by == self.selection.label_key
        if is_label and by not in self.reader.dtypes:
            where, option = self.reader.layout.described, "--by" if self.choice.rule is Rule.BALANCED else "--label-key"
            if by == LABEL and are_texts(self.reader):
                raise XaiError(
                    f"the labels of {where} are tokens, and no sample of it has one to share samples out by",
                    hint=by_fact(self.reader, option),
                )
            raise XaiError(
                f"{where} has no {by} to share samples out by",
                hint=f"log it with run.log_samples(..., label=...), or name a fact: {option} FACT",
            )
        column, own = LABEL if is_label else by, self.frame
        called = LabelNames.of_column(self.reader, self.selection, by).__getitem__
        if by == LABEL and not is_label:  # the recorded one: the candidates hold another column as theirs
            own = own.drop(LABEL)
        frame = with_columns(own, self.reader, self.selection, self.pair, [column], self.facts)
        by_value = is_label or by not in self.facts.names
        groups = grouped(frame[column], called, by_value=by_value)
        if not groups.rows:
            raise XaiError(f"no sample of {self.where} has a {by}", hint="there is nothing to share out by")
        if is_label:
            self._of_label = groups
        if len(groups.unknown):
            self.warnings.append(
                f"{_have(len(groups.unknown), self.where)} no {by}, and {_are(len(groups.unknown))} left out"
            )
        return groups

    def _draws(self, purpose: str) -> np.random.RandomState:
        return draws_of(self.choice.seed, purpose, *self.pair)

    def _ranked(self) -> Ranked:
        """What the rule finds, in its order: for rules that draw, in an order drawn."""
        every = np.arange(self.frame.height)
        match self.choice.rule:
            case Rule.RANDOM:
                return Ranked(draw(every, len(every), self._draws("rule")))
            case Rule.BALANCED:
                assert self.by is not None
                return Ranked(self._balanced(), there=self.frame.height - len(self.by.unknown))
            case Rule.DIVERSE:
                return self._diverse()
            case _:
                how = {"facts": self.facts, "stat": self.wanted.stat}
                return ranked(
                    self.choice,
                    self.frame,
                    self.reader,
                    self.selection,
                    self.pair,
                    self.found,
                    **how,  # type: ignore[arg-type]
                )

    def _balanced(self) -> NDArray[np.intp]:
        assert self.by is not None
        if self.choice.weight is not None:
            grouped_rows: NDArray[np.intp] = np.unique(np.concatenate(self.by.rows))
            return grouped_rows
        asked = self.choice.number(self.frame.height)
        sizes = [len(rows) for rows in self.by.rows]
        if asked is None:
            if sum(sizes) != len(np.unique(np.concatenate(self.by.rows))):
                raise UsageError("samples are in several groups: how many?", hint="--n 100, or --share 0.1")
            asked = min(sizes) * len(sizes)
        chosen = evenly(self.by, asked, self._draws("rule"))
        short = [name for name, size in zip(self.by.names, sizes, strict=True) if size * len(sizes) < len(chosen)]
        if asked < len(sizes):
            inside = sum(n > 0 for n in self.by.counts(chosen))
            by = self.choice.by or self.selection.label_key
            self.warnings.append(
                f"{self.where}: {inside:,} of the {len(sizes):,} values of {by} are among the {len(chosen):,} chosen, "
                "drawn by the seed"
            )
        if short:
            told = ", ".join(short[:5]) + (f" and {len(short) - 5:,} more" if len(short) > 5 else "")
            self.warnings.append(f"{self.where}: too few samples to be balanced, so all are taken: {told}")
        return chosen

    def _vectors(self) -> Vectors:
        """The embeddings of these samples, of the epochs asked for."""
        of_epoch = self.reader.where is not None and EPOCH in self.reader.where.columns
        is_limited = bool(self.selection.epoch_asked) or self.selection.epoch_frequency > 1 or of_epoch
        found = kept_vectors(
            self.reader,
            table=self.wanted.table,
            column=self.wanted.column,
            split=self.wanted.split,
            ids=self.frame[SAMPLE_ID],
            pair=self.pair,
            epochs=self.selection.epochs[self.pair] if is_limited else None,
        )
        self.embeddings = [{"split": split, "epoch": epoch} for split, epoch in found.places]
        splits = [split for split, _ in found.places]
        if self.wanted.split is None and any(split and split not in self.pair for split in splits):
            self.warnings.append(
                f"{self.where} goes by the embeddings of split {', '.join(splits)}, which alone has its samples"
            )
        if found.is_of_any_set and len(sharing := self.reader.ds_ids(self.pair[0])) > 1:
            self.warnings.append(
                f"the embeddings say no data set: {', '.join(map(repr, sharing))} of {self.pair[0]} each go by those "
                "with their ids"
            )
        if is_limited and found.places and all(epoch is None for _, epoch in found.places):
            self.warnings.append(f"the embeddings of table {self.wanted.table!r} say no epoch: they are as collected")
        return found

    def _diverse(self) -> Ranked:
        table = self._vectors()
        place = self.frame.select(pl.col(SAMPLE_ID).cast(pl.String)).with_row_index("place")
        ids = pl.DataFrame({SAMPLE_ID: table.ids.cast(pl.String)}).with_row_index("row")
        joined = place.join(ids, on=SAMPLE_ID, how="inner", maintain_order="left").unique("place", maintain_order=True)
        found = joined["row"].to_numpy().astype(np.intp)
        finite = all_finite(table.vectors)[found]
        places, found = joined["place"].to_numpy()[finite].astype(np.intp), found[finite]
        if not len(places):
            raise XaiError(
                f"no sample of {self.where} has an embedding in table {self.wanted.table!r}",
                hint="collect them with the run's own ids: xaicli.Table(dataset, ids=...)",
            )
        lacking = self.frame.height - len(places)
        if self.groups is None:
            asked = self.choice.number(self.frame.height)
            centres, far = k_centres(table.vectors, len(places) if asked is None else asked, found)
            return Ranked(places[centres], far, there=len(places), unknown=lacking, why_unknown="no finite embedding")
        rows, score = [], []
        grouped_rows = np.unique(np.concatenate(self.groups.rows))
        for group in self.groups.rows:
            asked = self.choice.number(len(group))
            own = np.flatnonzero(np.isin(places, group))
            centres, far = k_centres(table.vectors, len(own) if asked is None else asked, found[own])
            rows.append(places[own[centres]])
            score.append(far)
        order, scores = np.concatenate(rows), np.concatenate(score)
        _, once = np.unique(order, return_index=True)  # a sample of several classes
        once.sort()
        there = int(np.isin(places, grouped_rows).sum())
        return Ranked(order[once], scores[once], there=there, unknown=lacking, why_unknown="no finite embedding")

    def _chosen(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Places within what the rule found: the first of all, or of each label."""
        if self.groups is None:
            asked = self.choice.number(self.frame.height)
            return np.arange(len(rows) if asked is None or self._weighs_all else min(asked, len(rows)))
        return self.groups.first(rows, [self.choice.number(len(group)) for group in self.groups.rows])

    @property
    def _weighs_all(self) -> bool:
        return self.choice.rule is Rule.BALANCED and self.choice.weight is not None

    @property
    def rows_chosen(self) -> NDArray[np.intp]:
        """Places of the chosen among the candidates, in the order of the rule."""
        found: NDArray[np.intp] = self.ranked.rows[self.chosen]
        return found

    def _drawn(self) -> NDArray[np.intp]:
        """As many candidates as were chosen, drawn at random; of each label as many, too, where that was asked for."""
        draws = self._draws("control")
        if self.groups is None:
            return draw(np.arange(self.frame.height), len(self.chosen), draws)
        order = draw(np.arange(self.frame.height), self.frame.height, draws)
        drawn: NDArray[np.intp] = order[self.groups.like(order, self.rows_chosen)]
        return drawn

    def _tell(self) -> None:
        """Whatever was asked for and is not there."""
        rule, n = self.choice.rule, len(self.chosen)
        self.warnings += filter(None, [self.ranked.note])
        if self.ranked.unknown:
            self.warnings.append(
                f"{_have(self.ranked.unknown, self.where)} {self.ranked.why_unknown}, and cannot be chosen"
            )
        asked, is_found = self.choice.number(self.frame.height), bool(n or self.choice.n is not None)
        if asked is not None and self.groups is not None and is_found:
            numbers = [self.choice.number(len(rows)) or 0 for rows in self.groups.rows]
            counts = self.groups.counts(self.rows_chosen)
            short = [
                f"{name} {found:,}" + ("" if self.choice.share is None else f" of {wanted:,}")
                for name, found, wanted in zip(self.groups.names, counts, numbers, strict=True)
                if found < wanted
            ]
            if short:
                told = ", ".join(short[:5]) + (f" and {len(short) - 5:,} more" if len(short) > 5 else "")
                of_each = f"{asked:,}" if self.choice.share is None else percent(self.choice.share)
                self.warnings.append(f"{self.where}: asked for {of_each} of each label, only: {told}")
        elif asked is not None and n < asked and is_found and not self._weighs_all:
            self.warnings.append(f"{self.where}: asked for {asked:,}, only {n:,} are there")
        if not is_found:
            none = f"{self.choice.named} finds no sample" if self.wanted.ids is None else "no listed sample is there"
            self.warnings.append(f"{self.where}: {none}")
        if self.stale_left_out:
            left, given = (
                self.stale_left_out,
                {"--where": self.selection.where, "--label-map": self.selection.label_map},
            )
            limits = " and ".join(option for option, value in given.items() if value)
            lack = "without a finite value in the last epoch" + (f" among the rows of {limits}" if limits else "")
            self.warnings.append(f"{_samples(left, self.where)} {lack} {_are(left)} left out")
        if rule in (Rule.HARDEST, Rule.EASY) and not is_end_known(self.selection.metrics[0], self.wanted.stat):
            self.warnings.append(
                f"which end of {self.selection.metrics[0]} is good is not known: the highest counts as the hardest; "
                "--rule easy takes the lowest"
            )
        if self.choice.weight == 0 and n == self.frame.height > 0:
            self.warnings.append(
                f"{self.where}: every sample is chosen, and --weight 0 leaves all of them out: no sampler can draw"
            )
        if rule in _PRONE and (wrong := self._suspected()):
            self.warnings.append(
                f"{wrong:,} of the {n:,} chosen of {self.where} {_are(wrong)} suspected of a wrong label, the model's "
                "own mistakes among them: xai relabel export"
            )

    def _suspected(self) -> int:
        one = replace(self.selection, pairs=(self.pair,))
        ids = every_suspect(self.reader, one, self.found)[SAMPLE_ID]
        return int(_taken(self.frame.select(SAMPLE_ID), self.rows_chosen)[SAMPLE_ID].is_in(ids.implode()).sum())

    def rows(self) -> pl.DataFrame:
        """The rows of the answer."""
        rows = self.rows_chosen
        weights = np.full(len(rows), 1.0 if self.choice.weight is None else self.choice.weight)
        if self._weighs_all:
            weights = self._balancing()[rows]
        found = self._rows_shown(rows).with_columns(
            pl.Series("rank", np.arange(1, len(rows) + 1), pl.Int64),
            self._score(),
            pl.Series("weight", weights, pl.Float64),
            *self._words(),
        )
        if self.choice.weight is None:
            return found.select(self._columns)
        rest = self._rows_shown(np.flatnonzero(self._not_chosen())).with_columns(
            pl.lit(None, pl.Int64).alias("rank"),
            pl.lit(None, pl.Float64).alias("score"),
            # What is in no group is left out; beside the chosen of other rules all count as they did.
            pl.lit(0.0 if self._weighs_all else 1.0).alias("weight"),
            pl.lit(None, pl.String).alias("reason"),
            pl.lit(None, found.schema["suggested_label"]).alias("suggested_label"),
        )
        return pl.concat([found.select(self._columns), rest.select(self._columns)], how="vertical_relaxed")

    _columns = (MODE, DS_ID, SAMPLE_ID, LABEL, "rank", "score", "weight", "stale", "reason", "suggested_label")

    def random(self) -> pl.DataFrame:
        """Those drawn: mode, ds_id, sample_id, label."""
        return self._rows_shown(self.drawn).drop("stale")

    def _rows_shown(self, rows: NDArray[np.intp]) -> pl.DataFrame:
        origin = (pl.lit(self.pair[0]).alias(MODE), pl.lit(self.pair[1]).alias(DS_ID))
        told = (SAMPLE_ID, LABEL, "stale")
        return _taken(self.frame.select(told), rows).select(*origin, *told)

    def _not_chosen(self) -> NDArray[np.bool_]:
        """(n,) Which candidates were not chosen."""
        others = np.ones(self.frame.height, np.bool_)
        others[self.rows_chosen] = False
        return others

    def _score(self) -> pl.Series:
        values = self.ranked.score
        if values is None:
            return pl.Series("score", [None], pl.Float64).new_from_index(0, len(self.chosen))
        return pl.Series("score", values[self.chosen], pl.Float64).fill_nan(None)

    def _words(self) -> list[pl.Series]:
        kind = self.frame.schema[LABEL] if self.ranked.suggested is None else self.ranked.suggested.dtype
        told = {"reason": (self.ranked.reason, pl.String()), "suggested_label": (self.ranked.suggested, kind)}
        places = pl.Series(self.chosen, dtype=pl.Int64)
        return [
            pl.Series(name, [None], dtype).new_from_index(0, len(places))
            if values is None
            else pl.Series(name, values.gather(places), dtype)
            for name, (values, dtype) in told.items()
        ]

    def _balancing(self) -> NDArray[np.float64]:
        """Weights by which each group has the same chance; a sample of several groups has that of the rarest."""
        assert self.by is not None
        assert self.choice.weight is not None
        rarest = np.full(self.frame.height, np.inf)
        for rows in self.by.rows:
            rarest[rows] = np.minimum(rarest[rows], len(rows))
        known = np.isfinite(rarest)
        weights = np.zeros(self.frame.height)
        weights[known] = 1.0 / rarest[known]
        balanced: NDArray[np.float64] = weights * (self.choice.weight * int(known.sum()) / weights.sum())
        return balanced

    def beside(self) -> dict[str, list[dict[str, Any]]]:
        """What stands beside the rows: how many, the mixes, the worst left out."""
        asked = self.choice.number(self.frame.height) if self.groups is None else self.choice.n
        both = len(self.drawn) - int(self._not_chosen()[self.drawn].sum())
        numbers = {
            "samples": self.frame.height,
            "asked": asked,
            "there": len(self.ranked.rows) if self.ranked.there is None else self.ranked.there,
            "chosen": len(self.chosen),
            "random": len(self.drawn),
            "in_both": both,
        }
        mix, others = self._mix()
        found = {"chosen": [numbers], "mix": mix, "not_mixed": others, "left_out": self._left_out()}
        return {**found, "embeddings": self.embeddings} if self.embeddings else found

    def _mix(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The values of the label and of facts among all, the chosen and those drawn.

        What the samples are balanced by comes next to the label; facts of too many values are told apart, with how many
        they have.
        """
        by, key = self.choice.by if self.by is not None else None, self.selection.label_key
        columns = list(dict.fromkeys([key, *filter(None, (by, *self.facts.names))]))
        held = [LABEL if name == key else name for name in columns]
        frame = with_columns(self.frame, self.reader, self.selection, self.pair, held, self.facts)
        found: list[dict[str, Any]] = []
        others: list[dict[str, Any]] = []
        for name, column in zip(columns, held, strict=True):
            is_label = name == key
            known = self._of_label if is_label else self.by if name == by else None
            called = LabelNames.of_column(self.reader, self.selection, name).__getitem__
            groups = known or grouped(frame[column], called, by_value=is_label)
            if not groups.rows:
                continue
            if len(groups.rows) > _MOST_VALUES and not is_label and name != by:
                others.append({"column": name, "values": len(groups.rows)})
                continue
            found += [
                {"column": name, "value": value, "n": len(rows), "chosen": chosen, "random": drawn}
                for value, rows, chosen, drawn in zip(
                    groups.names, groups.rows, groups.counts(self.rows_chosen), groups.counts(self.drawn), strict=True
                )
            ]
            if n := len(groups.unknown):
                chosen, drawn = (int(np.isin(groups.unknown, rows).sum()) for rows in (self.rows_chosen, self.drawn))
                found.append({"column": name, "value": None, "n": n, "chosen": chosen, "random": drawn})
        return found, others

    def _left_out(self) -> list[dict[str, Any]]:
        """The worst candidates by the metric that were not chosen."""
        if not self.selection.metrics:
            return []
        metric, stat = self.selection.metrics[0], self.wanted.stat
        score = pl.col(score_column(self.frame, metric, stat)).cast(pl.Float64).alias(SCORE)
        rest = self.frame.select(SAMPLE_ID, LABEL, score).filter(pl.Series(self._not_chosen()))
        rest = rest.filter(pl.col(SCORE).is_finite())
        high = is_high_good(metric, stat)
        worst = extremes(rest, _WORST, highest=not high, computed=stat != LAST)
        told = [] if worst.schema[LABEL].is_float() else [named(worst[LABEL], self.names.by_value).alias("name")]
        return worst.select(SAMPLE_ID, LABEL, *told, SCORE).to_dicts()


def _taken(frame: pl.DataFrame, rows: NDArray[np.intp]) -> pl.DataFrame:
    """Some rows, in that order."""
    return frame.select(pl.all().gather(pl.Series(rows, dtype=pl.Int64)))


def _samples(n: int, where: str) -> str:
    return f"{n:,} {'sample' if n == 1 else 'samples'} of {where}"


def _have(n: int, where: str) -> str:
    return f"{_samples(n, where)} {'has' if n == 1 else 'have'}"


def _are(n: int) -> str:
    return "is" if n == 1 else "are"
