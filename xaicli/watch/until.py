"""Until when a training is watched: a rule on a metric, asked of every place that is whole."""

from __future__ import annotations

from typing import Any

import polars as pl

from xaicli.checks.rules import At, Rule, parse_rule
from xaicli.checks.verdicts import Outcome, Verdict, judged
from xaicli.errors import UsageError, unknown
from xaicli.queries.names import LabelNames
from xaicli.queries.resolution import resolve
from xaicli.queries.selection import Pair
from xaicli.reader import Place, Reader
from xaicli.vocabulary import LABEL, PREDICTION, SAMPLE_ID, Mode
from xaicli.watch.training import FINISHED, Now, Watched


class Until:
    """Whether a training has come so far.

    Args:
        text: A rule of one line, as `xai check` takes it: `loss mean < 0.1`, `correct mean by label >= 0.9`.
        mode: The mode it is about; `eval`, or `train` in a run without, when None.

    Attributes:
        last: The place that was asked last, and what came of it.
        part: The last place of a training that is over, where it is a part of one and was not asked.

    Raises:
        UsageError: It is no rule, or one that cannot be asked of a training as it runs.
    """

    def __init__(self, text: str, *, mode: str | None = None) -> None:
        self.rule: Rule = parse_rule(text)
        if not self.rule.metric:
            raise UsageError(
                f"--until {text!r} is about no metric", hint="--until 'loss mean < 0.1'; xai check asks the others"
            )
        if self.rule.largest_drop is not None or self.rule.at is not At.LAST:
            raise UsageError(f"--until {text!r} looks back", hint="--until 'loss mean < 0.1' looks at the newest place")
        self.mode = mode
        self._asked: set[tuple[Pair, int, int, int]] = set()
        self.last: tuple[Place, tuple[Verdict, ...]] | None = None
        self.part: Now | None = None

    def is_met(self, watched: Watched, reader: Reader) -> bool:
        """Whether some place that is whole keeps the rule; each is asked once, and again where a later start redid it.

        A place is whole where the next one has begun, where it has as many rows as the one before, or where it is the
        first and the training has finished. What one that died, or was ended within a pass, left is a part, which keeps
        no rule.

        Raises:
            XaiError: The run has no such metric or column.
        """
        modes = {now.mode for now in watched.places}
        mode = self.mode or (Mode.EVAL.value if Mode.EVAL in modes else Mode.TRAIN.value)
        for now in watched.places:
            if now.mode != mode:
                continue
            for place, whole in self._places(now, watched):
                pieces = reader.pieces(Place(now.mode, now.ds_id, place.epoch))
                attempt = max((piece.attempt for piece in pieces), default=0)
                key = (now.mode, now.ds_id), place.epoch, place.turn or 0, attempt
                if not whole and watched.is_over:
                    self.part = now
                if not whole or key in self._asked:
                    continue
                self._asked.add(key)
                verdicts = tuple(self._judged(reader, place))
                self.last = place, verdicts
                if verdicts and all(verdict.outcome is Outcome.PASSED for verdict in verdicts):
                    return True
        return False

    @staticmethod
    def _places(now: Now, watched: Watched) -> list[tuple[Place, bool]]:
        """The last places of a data set, and whether each is whole."""
        pair = now.mode, now.ds_id
        later = any(other.epoch > now.epoch for other in watched.places)
        full = watched.state == FINISHED if now.rows_before is None else now.rows >= now.rows_before
        last = Place(*pair, now.epoch, now.turn), later or full
        before = [Place(*pair, epoch, turn) for epoch, turn, _ in now.history[:-1]]
        return [*((place, True) for place in before), last]

    def _judged(self, reader: Reader, place: Place) -> list[Verdict]:
        rule = self.rule
        selection = resolve(reader, metric=[rule.metric], mode=place.mode)
        for column in rule.columns:
            if column not in reader.dtypes:
                raise unknown("column", column, list(reader.dtypes), where=reader.described)
        frame, _ = reader.frame(place, list(dict.fromkeys([SAMPLE_ID, rule.metric, *rule.columns])))
        names = LabelNames.of(reader, selection)
        values: set[Any] = set()
        for column in rule.columns:
            if column in (LABEL, PREDICTION):
                known = frame[column].drop_nulls()
                values |= set((known.explode() if isinstance(known.dtype, pl.List) else known).drop_nulls().unique())
        return judged(rule, frame, names={value: names[value] for value in values})
