"""Every statistic in every state of a training, by every engine, against plain Python."""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats
from sklearn import metrics

from tests import oracle
from tests.dynamics import dynamics_oracle
from tests.statistic_tester import APART, LEARNED, MISLABELLED, OUTLIERS, Found, Row, StatisticTester, training
from xaicli.api.run import RunReader
from xaicli.api.runs import compare
from xaicli.queries.spread import population

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


def by_place(rows: list[Row]) -> dict[tuple[int, int], list[Row]]:
    """The rows of each epoch and pass, in order."""
    places = sorted({(row["epoch"], row["pass"]) for row in rows})
    return {place: [row for row in rows if (row["epoch"], row["pass"]) == place] for place in places}


def finite(rows: Iterable[Row]) -> list[float]:
    return [row[METRIC] for row in rows if math.isfinite(row[METRIC])]


class TestPopulation(StatisticTester):
    """The bands behind the histories, by numpy's quantiles."""

    engines = ("polars",)

    def ask(self, run: RunReader, **words: Any) -> Found:
        rows = population(*run.selected(**words)).to_dicts()
        return {(row["epoch"], row["pass"]): row for row in rows}

    def expected(self, rows: list[Row]) -> Found:
        found: dict[Hashable, dict[str, Any]] = {}
        for place, here in by_place(rows).items():
            values = finite(here)
            bands = {f"q{q:02}": float(np.quantile(values, q / 100)) for q in (5, 25, 50, 75, 95)}
            found[place] = {"n": len(values), "step": here[0]["place_step"], **bands}
        return found


@pytest.mark.filterwarnings("ignore::UserWarning")
class TestConfusion(StatisticTester):
    """Precision, recall and F1 of every label and pass, by scikit-learn."""

    engines = ("polars",)

    def ask(self, run: RunReader, **words: Any) -> Found:
        rows = run.confusion(**words).data.to_dicts()
        return {(row["label"], row["epoch"], row["pass"]): row for row in rows}

    def expected(self, rows: list[Row]) -> Found:
        found: dict[Hashable, dict[str, Any]] = {}
        for place, here in by_place(rows).items():
            judged = [(row["label"], row["prediction"]) for row in here if row["label"] is not None]
            truth, taken = zip(*judged, strict=True)
            labels = sorted({*truth, *taken})
            figures = metrics.precision_recall_fscore_support(truth, taken, labels=labels, zero_division=0.0)
            for label, precision, recall, f1, n in zip(labels, *figures, strict=True):
                one = {"precision": float(precision), "recall": float(recall), "f1": float(f1), "n": int(n)}
                found[label, *place] = one | {"n_predicted": taken.count(label)}
        return found


@pytest.mark.filterwarnings("ignore::UserWarning")
class TestOverall(StatisticTester):
    """What one number says of each pass, by scikit-learn."""

    engines = ("polars",)

    def ask(self, run: RunReader, **words: Any) -> Found:
        rows = run.confusion(**words).answer.extra["overall"]
        return {(row["epoch"], row["pass"]): row for row in rows}

    def expected(self, rows: list[Row]) -> Found:
        found: dict[Hashable, dict[str, Any]] = {}
        for place, here in by_place(rows).items():
            judged = [(row["label"], row["prediction"]) for row in here if row["label"] is not None]
            truth, taken = zip(*judged, strict=True)
            found[place] = {
                "n": len(judged),
                "accuracy": float(metrics.accuracy_score(truth, taken)),
                "balanced_accuracy": float(metrics.balanced_accuracy_score(truth, taken)),
                "macro_f1": float(metrics.f1_score(truth, taken, average="macro", zero_division=0.0)),
                "weighted_f1": float(metrics.f1_score(truth, taken, average="weighted", zero_division=0.0)),
                "mcc": float(metrics.matthews_corrcoef(truth, taken)),
            }
        return found


class TestSteps(StatisticTester):
    """The mean loss of every batch."""

    engines = ("polars",)

    def ask(self, run: RunReader, **words: Any) -> Found:
        rows = run.steps(**words).data.to_dicts()
        return {(row["epoch"], row["step"], row["rank"]): row for row in rows}

    def expected(self, rows: list[Row]) -> Found:
        batches: dict[Hashable, list[Row]] = {}
        for row in rows:
            batches.setdefault((row["epoch"], row["step"], row["rank"]), []).append(row)
        return {
            key: {
                "n": len(here),
                "non_finite": len(here) - len(finite(here)),
                "loss": float(np.mean(finite(here))) if finite(here) else None,
            }
            for key, here in batches.items()
        }


class TestRules(StatisticTester):
    """The value that a rule is held against, of each label at the last place."""

    duplicates = ("last",)
    engines = ("polars",)

    def ask(self, run: RunReader, **words: Any) -> Found:
        rule = [f"{METRIC} {what} by label >= -99" for what in ("mean", "max", "p95")]
        rows = run.check(rule=rule, mode=words["mode"]).data
        return {(row["group"], row["rule"].split()[1]): row for row in rows.to_dicts() if row["group"] is not None}

    def expected(self, rows: list[Row]) -> Found:
        here = list(by_place(rows).values())[-1]
        found: dict[Hashable, dict[str, Any]] = {}
        for label in sorted({row["label"] for row in here if row["label"] is not None}):
            values = finite(row for row in here if row["label"] == label)
            for what, value in (("mean", np.mean(values)), ("max", max(values)), ("p95", np.quantile(values, 0.95))):
                found[str(label), what] = {"value": float(value), "n": len(values)}
        return found


class TestCompare(StatisticTester):
    """The mean of the metric and of each label at the last place: a run beside itself has not changed."""

    engines = ("polars",)

    def ask(self, run: RunReader, **words: Any) -> Found:
        rows = compare(run.layout.root, run.layout.root, max=0, min=0, **words).data.to_dicts()
        return {row["label"]: row for row in rows if row["kind"] != "sample"}

    def expected(self, rows: list[Row]) -> Found:
        here = list(by_place(rows).values())[-1]
        groups = {None: here} | {
            label: [row for row in here if row["label"] == label]
            for label in {row["label"] for row in here}
            if label is not None
        }
        means = {name: float(np.mean(finite(group))) for name, group in groups.items() if finite(group)}
        place = {name: [here[0][name]] * 2 for name in ("epoch", "pass")}
        counts = {name: len(finite(groups[name])) for name in means}
        return {
            name: {"values": [mean, mean], "change": 0.0, "n": [counts[name]] * 2, **place}
            for name, mean in means.items()
        }


class TestFindings(StatisticTester):
    """Ambiguous samples by the spread of their label's probability, forgotten ones by how often."""

    def ask(self, run: RunReader, **words: Any) -> Found:
        rows = run.findings(top=100, early_epochs=2, burn_in=1, **words).data
        found: dict[Hashable, dict[str, Any]] = {}
        for kind in ("ambiguous", "forgotten"):
            for place, row in enumerate(rows.filter(finding=kind).to_dicts()):
                found[kind, row["sample_id"]] = {"score": row["score"], "label": row["label"], "place": place}
        return found

    def expected(self, rows: list[Row]) -> Found:
        dynamics = dynamics_oracle.dynamics(rows)
        found: dict[Hashable, dict[str, Any]] = {}
        for kind, by in (("ambiguous", "variability"), ("forgotten", "forgetting")):
            scored = [(-one[by], key) for key, one in dynamics.items() if one[by]]
            for place, (score, key) in enumerate(sorted(scored)):
                found[kind, key] = {"score": -float(score), "label": dynamics[key]["label"], "place": place}
        return found


def recent(rows: list[Row], metric: str) -> float | None:
    """The mean in which the k-th finite value counts min(k, 5) squared times."""
    values = [row[metric] for row in rows if math.isfinite(row[metric])]
    weights = [min(k, 5) ** 2 for k in range(1, len(values) + 1)]
    return sum(w * x for w, x in zip(weights, values, strict=True)) / sum(weights) if values else None


def best_cut(values: list[float]) -> float:
    """The largest share of their variance that a cut of some values into two groups explains."""
    ordered, centre = sorted(values), statistics.fmean(values)
    whole = sum((x - centre) ** 2 for x in ordered)
    cuts = [(ordered[:k], ordered[k:]) for k in range(1, len(ordered))]
    return max(sum(len(part) * (statistics.fmean(part) - centre) ** 2 for part in cut) for cut in cuts) / whole


def deviation(value: float, group: list[float]) -> float:
    """How many robust deviations a value lies above the median of its group."""
    centre = statistics.median(group)
    return (value - centre) / (1.4826022185056018 * statistics.median(abs(x - centre) for x in group))


def suspicion(rows: list[Row]) -> dict[Hashable, float]:
    """The weighted mean of the normalised mid-ranks of each sample by error norm, loss and margin."""
    of_samples = {key: [row for row in rows if row["sample_id"] == key] for key in {r["sample_id"] for r in rows}}
    evidence = {
        name: {key: sign * value for key, own in of_samples.items() if (value := recent(own, name)) is not None}
        for name, sign in (("el2n", 1), ("loss", 1), ("margin", -1))
    }
    clear = (best_cut(list(evidence["el2n"].values())) - 2 / math.pi) / (0.75 - 2 / math.pi)
    weight = min(max(clear, 1e-6), 1 - 1e-6)
    scores: dict[Hashable, float] = {}
    for key in of_samples:
        ranks = {
            name: dynamics_oracle.mid_rank(values[key], list(values.values())) / len(values)
            for name, values in evidence.items()
            if key in values
        }
        weights = {"el2n": weight, "loss": (1 - weight) / 2, "margin": (1 - weight) / 2}
        total = sum(weights[name] for name in ranks)
        scores[key] = sum(weights[name] * rank for name, rank in ranks.items()) / total
    return scores


class TestSuspects(StatisticTester):
    """Where predictions are random, only what stands far out among its label is suspected, by the ranks of evidence."""

    def ask(self, run: RunReader, **words: Any) -> Found:
        rows = run.findings(top=100, **words).data.filter(finding="suspect").to_dicts()
        return {row["sample_id"]: {"score": row["score"], "label": row["label"]} for row in rows}

    def expected(self, rows: list[Row]) -> Found:
        scores = suspicion(rows)
        dynamics = dynamics_oracle.dynamics(rows)
        means = {key: (one["label"], one["loss_mean"]) for key, one in dynamics.items() if one["loss_mean"] is not None}
        far = {
            key: deviation(mean, [other for other_label, other in means.values() if other_label == label])
            for key, (label, mean) in means.items()
            if label is not None
        }
        assert {key for key, by in far.items() if by > 3} >= set(OUTLIERS), "the planted ones stand out"
        return {
            key: {"score": scores[key], "label": means[key][0]}
            for key, by in far.items()
            if by > 3 and scores[key] > 0.5
        }


class TestSuspectsOfALearnedNet(StatisticTester):
    """Where labels are predicted, those are suspected that predictions contradict, and the other label is suggested."""

    mode = LEARNED

    def ask(self, run: RunReader, **words: Any) -> Found:
        rows = run.findings(top=100, **words).data.filter(finding="suspect").to_dicts()
        names = ("score", "label", "suggested_label")
        return {row["sample_id"]: {name: row[name] for name in names} for row in rows}

    def expected(self, rows: list[Row]) -> Found:
        scores = suspicion(rows)
        assert set(sorted(scores, key=lambda key: -scores[key])[:3]) == set(MISLABELLED)
        return {key: {"score": scores[key], "label": key % 3, "suggested_label": (key + 1) % 3} for key in MISLABELLED}


class TestSuspectsUnderACondition(StatisticTester):
    """Of the samples that meet a condition the same."""

    mode = LEARNED

    def ask(self, run: RunReader, **words: Any) -> Found:
        rows = run.findings(top=100, where="epoch <> 3", **words).data.filter(finding="suspect").to_dicts()
        return {row["sample_id"]: {"score": row["score"]} for row in rows}

    def expected(self, rows: list[Row]) -> Found:
        scores = suspicion([row for row in rows if row["epoch"] != 3])
        return {key: {"score": scores[key]} for key in MISLABELLED}


class TestSlices(StatisticTester):
    """The label whose margins were planted apart is the one better slice; its interval by scipy."""

    engines = ("polars",)

    def ask(self, run: RunReader, **words: Any) -> Found:
        rows = run.slices(by="label", min_n=2, metric="margin", **words).data.filter(~pl.col("worse")).to_dicts()
        return {tuple(fact["value"] for fact in row["facts"]): row for row in rows}

    def expected(self, rows: list[Row]) -> Found:
        here = [row for row in list(by_place(rows).values())[-1] if math.isfinite(row["margin"])]
        own = [row["margin"] for row in here if row["label"] == APART]
        rest = [row["margin"] for row in here if row["label"] != APART]
        interval = stats.ttest_ind(own, rest, equal_var=False).confidence_interval()
        means = statistics.fmean(own), statistics.fmean(rest)
        return {
            (str(APART),): {
                "n": len(own),
                "share": len(own) / len(here),
                "mean": means[0],
                "rest_mean": means[1],
                "difference": means[0] - means[1],
                "low": float(interval.low),
                "high": float(interval.high),
                "worse": False,
            }
        }
