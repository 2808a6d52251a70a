"""One test for every statistic: the same training in every state, by every engine, against one plain reference.

A class that says what is asked and what is right is all that a new statistic needs beside its own module.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import oracle
from xaicli.api import open_run
from xaicli.api.run import RunReader
from xaicli.layout import RunLayout
from xaicli.maintenance.compact import compact
from xaicli.recorder.run import Run

Row = dict[str, Any]
Found = Mapping[Hashable, Mapping[str, Any]]

METRICS = ("loss", "label_prob", "margin", "el2n")
STATES = ("live", "stored", "compacted")
DUPLICATES = ("last", "all")
ENGINES = ("polars", "duckdb")
N = 14
OUTLIERS = (6, 7)
"""Samples of two labels whose losses stand far out."""
APART = 1
"""The label whose margins do."""
FAR = 40.0
LEARNED = "eval"
"""The mode of a net that predicts every label but those of `MISLABELLED`."""
N_LEARNED = 60
MISLABELLED = {3: 1, 8: 1, 31: 2}
"""{sample: every how many epochs another label is predicted}."""


@dataclass(frozen=True)
class Training:
    """A recorded training.

    Attributes:
        root: The run directory.
        logged: Its rows in the order of logging, those taken back included.
    """

    root: Path
    logged: list[Row]
    _counted: dict[tuple[str, str], list[Row]] = field(default_factory=dict)

    def rows(self, duplicates: str, mode: str) -> list[Row]:
        """The rows of a mode that count, in the order of places, each with the last step of its place."""
        if (duplicates, mode) not in self._counted:
            self._counted[duplicates, mode] = self._rows(duplicates, mode)
        return [dict(row) for row in self._counted[duplicates, mode]]

    def _rows(self, duplicates: str, mode: str) -> list[Row]:
        left = [row for row in oracle.left(self.logged) if row["mode"] == mode]
        kept = oracle.of_duplicates_the_last(left)
        last = {tuple(row[key] for key in oracle.PLACE): row["place_step"] for row in kept}
        if duplicates == "all":
            kept = [{**row, "place_step": last[tuple(row[key] for key in oracle.PLACE)]} for row in left]
        return sorted(
            kept, key=lambda row: tuple(row[key] for key in ("epoch", "pass", "attempt", "step", "rank", "order"))
        )


@pytest.fixture(scope="module", params=STATES)
def training(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Training]:
    """Five epochs, the second with two passes, samples twice or late; an attempt that begins again at the fourth."""
    root = tmp_path_factory.mktemp("trainings") / request.param
    logged: list[Row] = []
    draw = np.random.default_rng(11)
    with Run(root) as first:
        for epoch in (1, 2, 3, 4, 5):
            _log(first, logged, draw, attempt=0, epoch=epoch)
            _log_learned(first, logged, attempt=0, epoch=epoch)
    second = Run(root)
    for epoch in (4, 5):
        _log(second, logged, draw, attempt=1, epoch=epoch)
        _log_learned(second, logged, attempt=1, epoch=epoch)
    if request.param != "live":
        second.close()
    if request.param == "compacted":
        compact(RunLayout(root), grace=0.0)
    yield Training(root, oracle.complete(logged))
    second.close()


def _log(run: Run, logged: list[Row], draw: np.random.Generator, *, attempt: int, epoch: int) -> None:
    """One or two passes in two batches; every fourth value of a metric is not finite somewhere."""
    for turn in (0, 1) if epoch == 2 else (0,):
        there = [key for key in range(N) if key != epoch and (key < N - 2 or epoch > 2)]
        for part, ids in enumerate((there[::-1], there[:3])):
            step = epoch * 100 + turn * 10 + part
            n = len(ids)
            label = [None if key == 5 else key % 3 for key in ids]
            prediction = draw.integers(0, 3, n).tolist()
            values = {name: draw.choice([0.5, 0.25, 3.0, -1.0, 7.75, *draw.random(3)], n) for name in METRICS}
            for name, spoilt in zip(METRICS, (math.nan, math.inf, -math.inf, math.nan), strict=True):
                values[name][draw.random(n) < 0.15] = spoilt
            values["loss"] += np.where(np.isin(ids, OUTLIERS), FAR, 0.0)
            values["margin"] += np.where(np.array(ids) % 3 == APART, FAR, 0.0)
            columns = {name: numbers.astype(np.float32) for name, numbers in values.items()}
            run.log_samples(
                sample_id=ids,
                label=label,
                prediction=prediction,
                mode="train",
                epoch=epoch,
                step=step,
                eval_pass=turn,
                **columns,
            )
            logged += [
                {
                    "mode": "train",
                    "attempt": attempt,
                    "epoch": epoch,
                    "pass": turn,
                    "step": step,
                    "sample_id": ids[at],
                    "label": label[at],
                    "prediction": prediction[at],
                    "correct": None if label[at] is None else label[at] == prediction[at],
                    **{name: float(numbers[at]) for name, numbers in columns.items()},
                }
                for at in range(n)
            ]


def _log_learned(run: Run, logged: list[Row], *, attempt: int, epoch: int) -> None:
    """One batch, and some of its samples again: the error norm, the loss and the margin know what is predicted."""
    draw = np.random.default_rng([attempt, epoch])
    for part, ids in enumerate((list(range(N_LEARNED)), [3, 7, 50])):
        label = [None if key == 5 else key % 3 for key in ids]
        is_wrong = np.array([key in MISLABELLED and epoch % MISLABELLED[key] == 0 for key in ids])
        prediction = [(key + 1) % 3 if wrong else key % 3 for key, wrong in zip(ids, is_wrong, strict=True)]
        noise = draw.random((3, len(ids)))
        values = {
            "loss": np.where(is_wrong, 3.0, 0.2) + 0.1 * noise[0],
            "label_prob": np.where(is_wrong, 0.1, 0.8) + 0.1 * noise[0],
            "margin": np.where(is_wrong, -2.0, 2.0) + 0.1 * noise[1],
            "el2n": np.where(is_wrong, 1.2, 0.1) + 0.05 * noise[2],
        }
        columns = {name: numbers.astype(np.float32) for name, numbers in values.items()}
        where = {"mode": LEARNED, "epoch": epoch, "step": epoch * 100 + part}
        run.log_samples(sample_id=ids, label=label, prediction=prediction, **where, **columns)
        logged += [
            {
                **where,
                "attempt": attempt,
                "pass": 0,
                "sample_id": key,
                "label": label[at],
                "prediction": prediction[at],
                "correct": None if label[at] is None else label[at] == prediction[at],
                **{name: float(numbers[at]) for name, numbers in columns.items()},
            }
            for at, key in enumerate(ids)
        ]


class StatisticTester:
    """What every statistic must stand: subclasses say `ask` and `expected`, and what they are not asked for."""

    duplicates: Sequence[str] = DUPLICATES
    engines: Sequence[str] = ENGINES
    mode = "train"

    def ask(self, run: RunReader, **words: Any) -> Found:
        """What xai answers: {what it is of: {name: value}}."""
        raise NotImplementedError

    def expected(self, rows: list[Row]) -> Found:
        """The same in plain Python or by scikit-learn; a value may be a set of those that are right."""
        raise NotImplementedError

    @pytest.mark.parametrize("engine", ENGINES)
    @pytest.mark.parametrize("duplicates", DUPLICATES)
    def test_equals_the_reference(self, training: Training, engine: str, duplicates: str) -> None:
        if duplicates not in self.duplicates:
            pytest.skip("of duplicates only the last one is asked for")
        if engine not in self.engines:
            pytest.skip("polars alone answers this")
        if len(self.duplicates) > 1 and not is_asked(training, duplicates, engine):
            pytest.skip("of a state, duplicates and an engine every two are asked together, not all three")
        found = self.ask(open_run(training.root), mode=self.mode, engine=engine, duplicates=duplicates)
        expected = self.expected(training.rows(duplicates, self.mode))
        assert set(found) == set(expected)
        for key, values in expected.items():
            for name, value in values.items():
                assert _is(found[key].get(name), value), (key, name, found[key].get(name), value)


def is_asked(training: Training, duplicates: str, engine: str) -> bool:
    """Whether this question is asked in this state: half are, every two of the three choices together among them."""
    return (STATES.index(training.root.name) + DUPLICATES.index(duplicates) + ENGINES.index(engine)) % 2 == 0


def _is(found: Any, value: Any) -> bool:
    if isinstance(value, set):
        return found in value
    if isinstance(value, float):
        return isinstance(found, float) and math.isclose(found, value, rel_tol=1e-9, abs_tol=1e-9)
    if isinstance(value, list):
        return len(found) == len(value) and all(_is(one, other) for one, other in zip(found, value, strict=True))
    if isinstance(value, dict):
        return all(_is(found[name], one) for name, one in value.items())
    return bool(found == value)
