"""Every statistic in every state of a training, by every engine, against plain Python."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from tests import oracle
from tests.dynamics import dynamics_oracle
from tests.statistic_tester import Found, Row, StatisticTester, training
from xaicli.api.run import RunReader

__all__ = ["training"]

METRIC = "loss"


class TestScores(StatisticTester):
    """Scores, histories and what is stale of every sample, highest first."""

    duplicates = ("last",)

    def ask(self, run: RunReader, **words: Any) -> Found:
        rows = run.samples(max=100, min=0, **words).data.to_dicts()
        return {row["sample_id"]: row for row in rows}

    def expected(self, rows: list[Row]) -> Found:
        found = oracle.samples(rows, max=100, min=0, metric=METRIC)
        names = ("rank", "score", "stale", "label", "history")
        return {row["sample_id"]: {name: row[name] for name in names} for row in found}


class TestMeanAsScore(StatisticTester):
    """A statistic of the dynamics as the score."""

    duplicates = ("last",)

    def ask(self, run: RunReader, **words: Any) -> Found:
        rows = run.samples(max=100, min=0, stat="mean", **words).data.to_dicts()
        return {row["sample_id"]: {"score": row["score"]} for row in rows}

    def expected(self, rows: list[Row]) -> Found:
        found = dynamics_oracle.dynamics(rows)
        return {key: {"score": row["loss_mean"]} for key, row in found.items() if row["loss_mean"] is not None}


class TestLabels(StatisticTester):
    """Mean, spread and quantiles of each label and pass."""

    def ask(self, run: RunReader, **words: Any) -> Found:
        rows = run.labels(bounds=["std", "quantile", "ci"], **words).data.to_dicts()
        return {(row["label"], row["epoch"], row["pass"]): row["bounds"] | row for row in rows}

    def expected(self, rows: list[Row]) -> Found:
        names = ("n", "mean", "std", "min", "max", "ci")
        found: dict[Hashable, dict[str, Any]] = {}
        for key, row in oracle.labels(rows, metric=METRIC).items():
            found[key] = {name: row[name] for name in names} | {"quantile": [float(q) for q in row["quantile"]]}
        return found


class TestDynamics(StatisticTester):
    """Every statistic of the training dynamics."""

    def ask(self, run: RunReader, **words: Any) -> Found:
        rows = run.dynamics(early_epochs=2, burn_in=1, **words).data.to_dicts()
        return {
            row["sample_id"]: row | {"rank_jump_when": (row["rank_jump_epoch"], row["rank_jump_direction"])}
            for row in rows
        }

    def expected(self, rows: list[Row]) -> Found:
        return dynamics_oracle.dynamics(rows, early_epochs=2, burn_in=1)
