"""The report of how a model errs: residuals, thresholds, sets of classes, tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from xaicli.answer import Answer
from xaicli.report.charts import Band, LineChart, ScatterChart, Series, Times, Tone
from xaicli.report.facts import FactColumns, in_hover, on_card
from xaicli.report.findings import DOUBT_SCORE, OBJECT_SCORE
from xaicli.report.model import (
    IN_CSV,
    Block,
    Card,
    Cell,
    Column,
    Figure,
    Figures,
    Gallery,
    Passage,
    Report,
    Table,
    Text,
)
from xaicli.report.numbers import count, cut, cut_among, exact, sample_name, short
from xaicli.report.page import Page, Part, report_of, words_of
from xaicli.words import percent

_TITLES = {
    "regression": "How far the numbers are off",
    "binary": "Yes or no at every threshold",
    "multilabel": "Which classes are missed and added",
    "sequence": "Where in the texts the loss is",
    "objects": "What was found, missed and made up",
}
_RULES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "regression": (
        ("residual", "label minus prediction"),
        ("fifths", "of the labels of the last place: as many samples in each"),
        ("R2", "1 - squared residuals over squared deviations of the labels from their mean"),
    ),
    "binary": (
        ("score", "the probability of the positive label: top_prob where it is predicted, else 1 - top_prob"),
        ("called positive", "a sample whose score is at least the threshold"),
        ("predicted rightly", "as recorded: at a probability of exactly 0.5 the prediction is the first of the two"),
        ("average precision", "the mean precision over the recall steps, without interpolation"),
    ),
    "multilabel": (
        ("micro, macro", "over all labels of all samples; the mean over the labels"),
        ("taken for one another", "samples in which one label is missed while the other is added"),
    ),
    "objects": (
        ("tp, fp, fn", "as the collector matched them; crowds and what falls on them do not count"),
        ("average precision", "101 recalls, the highest precision at that recall or above; the mean over the classes"),
        ("confusion", "a missed and a made-up object of other classes that overlap by half or more, else background"),
        ("made up", "confidence above 0.5, and no true object overlaps by more than 0.1"),
        ("placed off it", "confidence above 0.5, and an overlap above 0.1 that is too little to match"),
    ),
    "sequence": (
        ("loss", "the mean over all tokens, each counting as much"),
        ("fifths", "of the lengths at the last place"),
        ("worst tokens", "the highest mean loss of those that occur three times or more"),
        ("place of the token", "among those of its text that have a loss, from 0"),
        ("worst at", "the place in the row of labels as it was logged, from 0: ignored and padded ones count, too"),
    ),
}
_PASSAGES = 12
_TOLD = 10
"""A group of fewer samples is not named in a sentence, and stands after the others."""
_IN_TERMINAL = 12


def errors_report(answer: Answer, page: Page | None = None) -> Report:
    """The page of `xai errors`.

    Args:
        answer: A row a place; the details of the last place by name.
        page: The run, with thumbnails of the samples.
    """
    page = page or Page()
    task = str(answer.extra["task"])
    places = list(answer.data.iter_rows(named=True))
    parts = []
    for mode, ds_id in dict.fromkeys((row["mode"], row["ds_id"]) for row in places):
        own = [row for row in places if (row["mode"], row["ds_id"]) == (mode, ds_id)]
        details = {
            name: [row for row in _rows(found) if (row["mode"], row["ds_id"]) == (mode, ds_id)]
            for name, found in answer.extra.items()
            if not isinstance(found, (str, type(None)))
        }
        part = _Errors(words_of(mode, ds_id), own, details, answer, page)
        parts.append(Part(part.words, tuple(part.blocks(task)), part.sentence(task)))
    return report_of(
        answer,
        page,
        parts,
        name="errors",
        title=_TITLES[task],
        rules=_RULES[task],
        tables=_tables(answer),
    )


def _rows(found: Any) -> list[dict[str, Any]]:
    return list(found) if isinstance(found, list) else list(found.iter_rows(named=True))


def _tables(answer: Answer) -> dict[str, Callable[[], Any]]:
    tables: dict[str, Callable[[], Any]] = {"errors": lambda: answer.data}
    for name, found in answer.extra.items():
        if not isinstance(found, (str, type(None))) and len(found) and name not in ("n_points", "n"):
            tables[f"errors-{name.replace('_', '-')}"] = lambda found=found: found  # type: ignore[misc]
    return tables


class _Errors:
    """What is shown of one (mode, ds_id)."""

    def __init__(
        self,
        words: str,
        places: Sequence[Mapping[str, Any]],
        details: Mapping[str, Sequence[Mapping[str, Any]]],
        answer: Answer,
        page: Page,
    ) -> None:
        self.words = words
        self.places = places
        self.details = details
        self.answer = answer
        self.page = page
        self.last = places[-1]
        self.truth = str(answer.selection.get("label_key") or "label")
        self._in_order = (self.truth, "n_tokens")  # told by fifths; of other columns the worst values come first

    def sentence(self, task: str) -> str:
        """What the page says first."""
        last, words = self.last, self.words
        match task:
            case "regression":
                said = (
                    f"{words}: the predictions of {count(last['n'], 'sample')} are off by {_short(last['mae'])} in the "
                    f"mean, R2 {_short(last['r2'])}"
                )
                fifths = [row for row in self.details["groups"] if row["column"] == self.truth]
                if len(fifths) > 1:
                    worst = max(fifths, key=lambda row: row["mae"])
                    called = "the label" if self.truth == "label" else self.truth
                    said += f"; most where {called} is {worst['value']} ({_short(worst['mae'])})"
            case "binary":
                positive = cut(str(self.answer.extra["positive"]))
                if not last["positives"]:
                    said = (
                        f"{words}: none of {count(last['n'], 'sample')} is {positive}; how it is found cannot be told"
                    )
                else:
                    best = f"{_short(last['best_f1'])}, is at threshold {_short(last['best_threshold'])}"
                    said = (
                        f"{words}: {positive} is told from the rest with AUROC {_short(last['auroc'])}, average "
                        f"precision {_short(last['average_precision'])}; the best F1, {best}"
                    )
            case "multilabel":
                said = f"{words}: macro F1 {_short(last['macro_f1'])}, {_percent(last['exact'])} of the sets are exact"
                if labels := self._labels():
                    name = cut_among(labels[0]["name"], (row["name"] for row in labels))
                    said += f"; lowest F1: {name} ({_short(labels[0]['f1'])})"
            case "objects":
                said = (
                    f"{words + ': ' if words else ''}average precision {_short(last['average_precision'])} over "
                    f"{count(last['pictures'], 'picture')}: {last['tp']:,} found, {last['fn']:,} missed, "
                    f"{last['fp']:,} made up"
                )
                if last.get("empty"):
                    said += f"; {count(last['empty'], 'picture')} without any object that counts"
            case _:
                said = f"{words}: loss {_short(last['loss'])} a token, perplexity {_short(last['perplexity'])}"
                if groups := [row for row in self.details["groups"] if row["loss"] is not None and row["n"] >= _TOLD]:
                    worst = max(groups, key=lambda row: row["loss"])
                    values = (str(row["value"]) for row in groups)
                    where = f"{worst['column']} is {cut_among(str(worst['value']), values)} ({_short(worst['loss'])})"
                    said += f"; of groups of {_TOLD} or more highest where {where}"
        return said + "."

    def blocks(self, task: str) -> Iterator[Block]:
        """What is shown."""
        match task:
            case "regression":
                yield from self._residuals()
            case "binary":
                yield from self._thresholds()
            case "multilabel":
                yield from self._sets()
            case "objects":
                yield from self._objects()
            case _:
                yield from self._sequences()
        if self.last.get("unknown"):
            rows = count(self.last["unknown"], "row")
            said = "lacks label or answer and is" if self.last["unknown"] == 1 else "lack label or answer and are"
            yield Text(f"{rows} of the last place {said} left out.", Tone.BAD)

    # -- what the tasks share

    def _name(self, *parts: str) -> str:
        return self.page.names("errors", *parts, self.words)

    def _listed(self, name: str, note: str = "") -> str:
        """A note of a list, with how many there are where it does not hold all."""
        shown, total = len(self.details[name]), self.details["n"][0].get(name, 0) if self.details.get("n") else 0
        few = f"{shown:,} of {total:,}: --top {total} lists all." if total > shown else ""
        return " ".join(filter(None, (few, note)))

    def _course(self, title: str, y_label: str, names: Mapping[str, str]) -> Iterator[Block]:
        """Figures over the places; nothing of a single one."""
        if len(self.places) < 2:
            return
        xs = tuple(float(number) for number, _ in enumerate(self.places))
        several = len({row["pass"] for row in self.places}) > 1
        if not several:
            xs = tuple(float(row["epoch"]) for row in self.places)
        series = tuple(
            Series(said, xs, tuple(row[name] for row in self.places), colour=number)
            for number, (name, said) in enumerate(names.items())
        )
        x_label = "pass" if several else "epoch"
        yield LineChart(self._name(title), f"{title}: {self.words}", x_label, y_label, series, alt=title)

    def _groups(self, columns: Mapping[str, tuple[str, Cell]]) -> Iterator[Block]:
        rows = self.details["groups"]
        for column in dict.fromkeys(row["column"] for row in rows):
            own = [row for row in rows if row["column"] == column]
            if column not in self._in_order:
                own.sort(key=lambda row: ((row["n"] or 0) >= _TOLD, _badness(row)), reverse=True)
            heads = [Column(column), *(Column(title, cell) for title, cell in columns.values())]
            cells = tuple((row["value"], *(row[name] for name in columns)) for row in own)
            few = column not in self._in_order and (own[0]["n"] or 0) >= _TOLD > (own[-1]["n"] or 0)
            note = f"Groups of fewer than {_TOLD} are last." if few else ""
            yield Table(
                self._name("by", column), f"By {column}: {self.words}", tuple(heads), cells, note, rest_in=IN_CSV
            )

    # -- one task each

    def _residuals(self) -> Iterator[Block]:
        last = self.last
        yield Figures(
            (
                Figure(_short(last["mae"]), "mean absolute residual"),
                Figure(_short(last["rmse"]), "root of the mean squared residual"),
                Figure(_short(last["r2"]), "R2"),
                Figure(_short(last["bias"]), "mean residual: label minus prediction"),
            )
        )
        yield from self._course("Error over time", "error", {"mae": "mean absolute", "rmse": "root mean square"})
        yield from self._residuals_over_time()
        yield from self._plane()
        number = Cell.NUMBER
        columns = {"n": ("samples", Cell.INTEGER), "mae": ("mean absolute", number), "rmse": ("root squared", number)}
        yield from self._groups(columns | {"bias": ("mean residual", number), "median_abs_error": ("median", number)})
        rows = self.details["worst"]
        facts = FactColumns(rows, self.page.facts.path)
        heads = [Column("sample"), *facts.columns]
        heads += [Column(name, number) for name in ("label", "prediction", "residual")]
        cells = tuple(
            (str(row["sample_id"]), *facts.cells(row), row["label"], row["prediction"], row["residual"]) for row in rows
        )
        keys = tuple(self._key(row) for row in rows)
        yield Table(
            self._name("worst"),
            f"Farthest off: {self.words}",
            tuple(heads),
            cells,
            self._listed("worst", facts.note),
            keys,
            rest_in=IN_CSV,
        )

    def _residuals_over_time(self) -> Iterator[Block]:
        """The residuals' quantiles over time."""
        if len(self.places) < 2 or len({row["pass"] for row in self.places}) > 1:
            return
        xs = tuple(float(row["epoch"]) for row in self.places)
        bands = tuple(
            Band(said, xs, tuple(row[low] for row in self.places), tuple(row[high] for row in self.places))
            for said, low, high in (("middle 90 %", "q05", "q95"), ("middle 50 %", "q25", "q75"))
        )
        median = Series("median", xs, tuple(row["q50"] for row in self.places), Tone.MEDIAN)
        yield LineChart(
            self._name("residuals"),
            f"Residuals over time: {self.words}",
            "epoch",
            "label minus prediction",
            (median,),
            bands,
            legend="Grey: the middle 90 % and 50 % of all samples, and their median.",
            alt="quantiles of the residuals over the epochs",
        )

    def _plane(self) -> Iterator[Block]:
        """Predicted against true."""
        rows = self.details["points"]
        if not rows:
            return
        told = self.details["n_points"][0]
        few = (
            ""
            if told["n"] == told["shown"]
            else f"{told['shown']:,} of {told['n']:,}: the farthest off, and every k-th."
        )
        yield ScatterChart(
            self._name("plane"),
            f"Predicted against true: {self.words}",
            "label",
            "prediction",
            tuple(row["label"] for row in rows),
            tuple(row["prediction"] for row in rows),
            names=tuple(f"{sample_name(row['sample_id'])} " + in_hover(row) for row in rows),
            legend=" ".join(("On the line both are equal.", few)).strip(),
            alt=f"predictions of {count(told['n'], 'sample')} against their labels",
            diagonal=True,
        )

    def _thresholds(self) -> Iterator[Block]:
        last, rows = self.last, self.details["thresholds"]
        yield Figures(
            (
                Figure(_short(last["auroc"]), "AUROC"),
                Figure(_short(last["average_precision"]), "average precision"),
                Figure(_percent(last["accuracy"]), "predicted rightly"),
                Figure(_short(last["best_f1"]), f"best F1, at {_short(last['best_threshold'])}")
                if last["positives"]
                else Figure("–", "best F1: no sample is positive"),
                Figure(f"{last['positives']:,}", f"of {last['n']:,} are {cut(str(self.answer.extra['positive']))}"),
            )
        )
        if rows:
            rates = (0.0, *(row["false_positive_rate"] for row in rows))
            roc = Series("ROC", rates, (0.0, *(row["recall"] for row in rows)), colour=0)
            chance = Series("by chance", (0.0, 1.0), (0.0, 1.0), Tone.REFERENCE)
            yield LineChart(
                self._name("roc"),
                f"ROC: {self.words}",
                "share of the negatives called positive",
                "share of the positives found",
                (roc, chance),
                alt=f"ROC curve, area {_short(last['auroc'])}",
            )
            found = Series(
                "precision", tuple(row["recall"] for row in rows), tuple(row["precision"] for row in rows), colour=0
            )
            share = last["positives"] / last["n"] if last["n"] else 0.0
            yield LineChart(
                self._name("pr"),
                f"Precision and recall: {self.words}",
                "share of the positives found",
                "share of those called positive that are",
                (found, Series("by chance", (0.0, 1.0), (share, share), Tone.REFERENCE)),
                alt=f"precision over recall, average precision {_short(last['average_precision'])}",
                y_limits=(0.0, 1.05),
            )
            xs = tuple(row["threshold"] for row in reversed(rows))
            names = ("precision", "recall", "f1", "accuracy")
            yield LineChart(
                self._name("thresholds"),
                f"What each threshold gives: {self.words}",
                "threshold",
                "share",
                tuple(
                    Series(name, xs, tuple(row[name] for row in reversed(rows)), colour=number)
                    for number, name in enumerate(names)
                ),
                alt="precision, recall, F1 and accuracy over the thresholds",
            )
        yield from self._course("Over time", "area", {"auroc": "AUROC", "average_precision": "average precision"})
        number, whole = Cell.NUMBER, Cell.INTEGER
        columns = {"n": ("samples", whole), "positives": ("positive", whole), "auroc": ("AUROC", number)}
        rest = {name: (name, number) for name in ("average_precision", "accuracy", "precision", "recall", "f1")}
        yield from self._groups(columns | rest)
        told = ("threshold", "tp", "fp", "fn", "tn", "precision", "recall", "f1")
        cells = tuple(tuple(row[name] for name in told) for row in rows)
        heads = tuple(Column(name, whole if name in told[1:5] else number) for name in told)
        n = self.details["n"][0]["thresholds"]
        note = f"{len(rows):,} of the {n:,} scores that occur, evenly spread over the curves." if n > len(rows) else ""
        yield Table(self._name("table"), f"Thresholds: {self.words}", heads, cells, note, folded=True)

    def _labels(self) -> list[Mapping[str, Any]]:
        return sorted(self.details["labels"], key=lambda row: (row["f1"], row["name"]))

    def _sets(self) -> Iterator[Block]:
        last = self.last
        yield Figures(
            (
                Figure(_short(last["macro_f1"]), "macro F1"),
                Figure(_short(last["micro_f1"]), "micro F1"),
                Figure(_percent(last["exact"]), "of the sets exact"),
                Figure(
                    f"{_short(last['labels_a_sample'])} → {_short(last['predicted_a_sample'])}",
                    "labels a sample, and predicted",
                ),
            )
        )
        yield from self._course("F1 over time", "F1", {"macro_f1": "macro", "micro_f1": "micro", "exact": "exact sets"})
        number, whole = Cell.NUMBER, Cell.INTEGER
        heads: tuple[Column, ...] = (
            Column("label"),
            Column("samples", whole),
            Column("missed", whole),
            Column("added", whole),
        )
        heads += tuple(Column(name, number) for name in ("precision", "recall", "F1"))
        cells: tuple[tuple[Any, ...], ...] = tuple(
            (
                *(row["name"], row["n"], row["n"] - row["n_right"], row["n_predicted"] - row["n_right"]),
                *(row["precision"], row["recall"], row["f1"]),
            )
            for row in self._labels()
        )
        title = f"Each label, the lowest F1 first: {self.words}"
        yield Table(self._name("labels"), title, heads, cells, rest_in=IN_CSV)
        of_all = {"exact": "exact", "micro_f1": "micro F1", "macro_f1": "macro F1"}
        columns = {"n": ("samples", whole), **{name: (said, number) for name, said in of_all.items()}}
        each = {"labels_a_sample": ("labels", number), "predicted_a_sample": ("predicted", number)}
        yield from self._groups(columns | each)
        rows = self.details["swapped"]
        heads = (Column("missed"), Column("added"), Column("samples", whole), Column("of the missed", number))
        cells = tuple((r["name"], r["prediction_name"], r["n"], _percent(r["share"])) for r in rows)
        title = f"Labels taken for one another: {self.words}"
        yield Table(self._name("swapped"), title, heads, cells, self._listed("swapped"), rest_in=IN_CSV)
        rows = self.details["doubted"]
        facts = FactColumns(rows, self.page.facts.path)
        heads = (Column("sample"), Column("label"), *facts.columns, Column("score", number), Column("reason"))
        cells = tuple((str(r["sample_id"]), r["name"], *facts.cells(r), r["score"], r["reason"]) for r in rows)
        title = f"Single labels in doubt: {self.words}"
        keys = tuple(self._key(row) for row in rows)
        note = self._listed("doubted", "; ".join(filter(None, (DOUBT_SCORE, facts.note))))
        yield Table(self._name("doubted"), title, heads, cells, note, keys, terminal_rows=_IN_TERMINAL, rest_in=IN_CSV)

    def _sequences(self) -> Iterator[Block]:
        last = self.last
        figures = [Figure(_short(last["loss"]), "loss a token"), Figure(_short(last["perplexity"]), "perplexity")]
        if last["accuracy"] is not None:
            figures.append(Figure(_percent(last["accuracy"]), "of the tokens right"))
        yield Figures((*figures, Figure(f"{last['tokens']:,}", f"tokens in {count(last['n'], 'sequence')}")))
        yield from self._course("Loss over time", "loss a token", {"loss": "loss"})
        places = self.details["places"]
        if len(places) > 1:
            xs = tuple((row["first"] + row["last"]) / 2 for row in places)
            counts = tuple(row["n"] for row in places)
            course = Series("mean loss", xs, tuple(row["loss"] for row in places), counts=counts, colour=0)
            title = f"Loss over the text: {self.words}"
            yield LineChart(
                self._name("places"), title, "place of the token among those with a loss", "loss", (course,), alt=title
            )
        number, whole = Cell.NUMBER, Cell.INTEGER
        columns = {"n": ("sequences", whole), "tokens": ("tokens", whole), "loss": ("loss a token", number)}
        yield from self._groups(columns | {"perplexity": ("perplexity", number), "accuracy": ("right", number)})
        rows = self.details["worst_tokens"]
        heads: tuple[Column, ...] = (Column("token"), Column("times", whole), Column("mean loss", number))
        if rows:
            cells: tuple[tuple[Any, ...], ...] = tuple((row["token"], row["n"], row["loss"]) for row in rows)
            note = self._listed("worst_tokens")
            yield Table(self._name("tokens"), f"Worst tokens: {self.words}", heads, cells, note, rest_in=IN_CSV)
        rows = self.details["worst"]
        facts = FactColumns(rows, self.page.facts.path)
        heads = (Column("sequence"), *facts.columns, Column("loss", number), Column("tokens", whole))
        heads += (Column("worst at", whole), Column("loss there", number))
        cells = tuple(
            (
                *(str(row["sample_id"]), *facts.cells(row), row["loss"], _as_int(row.get("n_tokens"))),
                *(_as_int(row.get("worst_token")), row.get("worst_token_loss")),
            )
            for row in rows
        )
        keys = tuple(self._key(row) for row in rows)
        note = self._listed("worst", facts.note)
        yield Table(self._name("worst"), f"Worst sequences: {self.words}", heads, cells, note, keys, rest_in=IN_CSV)
        worded = [row for row in rows if row["words"]]
        top = max((word["loss"] for row in worded for word in row["words"]), default=0.0) or 1.0
        for row in worded[:_PASSAGES]:
            words = tuple((word["token"], min(1.0, max(0.0, word["loss"] / top))) for word in row["words"])
            said = f"loss {_short(row['loss'])} a token"
            yield Passage(self._key(row), sample_name(row["sample_id"]), (said,), words, str(row["sample_id"]))

    def _objects(self) -> Iterator[Block]:
        last, number, whole = self.last, Cell.NUMBER, Cell.INTEGER
        yield Figures(
            (
                Figure(_short(last["average_precision"]), "average precision"),
                Figure(_short(last["precision"]), "precision"),
                Figure(_short(last["recall"]), "recall"),
                Figure(_short(last["mean_iou"]), "mean IoU of what was found"),
            )
        )
        names = {"average_precision": "average precision", "recall": "recall", "mean_iou": "mean IoU"}
        yield from self._course("Over the epochs", "share", names | {"precision": "precision"})
        yield from self._course("Counts over the epochs", "objects", {"tp": "found", "fp": "made up", "fn": "missed"})
        heads: tuple[Column, ...] = (Column("class"), *(Column(name, whole) for name in ("found", "made up", "missed")))
        heads += tuple(Column(name, number) for name in ("precision", "recall", "mean IoU", "AP"))
        told = ("tp", "fp", "fn", "precision", "recall", "mean_iou", "average_precision")
        rows = sorted(self.details["classes"], key=lambda row: (row["average_precision"] or 0.0, row["name"]))
        cells: tuple[tuple[Any, ...], ...] = tuple((row["name"], *(row[name] for name in told)) for row in rows)
        title = f"Each class, the lowest average precision first: {self.words}"
        yield Table(self._name("classes"), title, heads, cells, rest_in=IN_CSV)
        if self.details.get("groups"):
            columns = {"n": ("pictures", whole), "tp": ("found", whole), "fp": ("made up", whole)}
            columns |= {"fn": ("missed", whole), "precision": ("precision", number), "recall": ("recall", number)}
            columns |= {"mean_iou": ("mean IoU", number), "average_precision": ("AP", number)}
            yield from self._groups(columns)
        rows = [row for row in self.details["confusion"] if row["name"] != row["prediction_name"]]
        rows.sort(key=lambda row: (-row["n"], row["name"], row["prediction_name"]))
        cells = tuple((row["name"], row["prediction_name"], row["n"]) for row in rows)
        heads = (Column("object"), Column("found as"), Column("times", whole))
        title = f"Classes and background taken for one another: {self.words}"
        yield Table(self._name("confusion"), title, heads, cells, rest_in=IN_CSV)
        rows = list(self.details["suspects"])
        facts = FactColumns(rows, self.page.facts.path)
        heads = (Column("picture"), *facts.columns, Column("score", number), Column("box"), Column("reason"))
        cells = tuple((str(r["sample_id"]), *facts.cells(r), r["score"], _corners(r), r["reason"]) for r in rows)
        title = f"Labels in doubt, as missing or wrong: {self.words}"
        keys = tuple(self._key(row) for row in rows)
        note = self._listed("suspects", "; ".join(filter(None, (OBJECT_SCORE, facts.note))))
        yield Table(self._name("suspects"), title, heads, cells, note, keys, terminal_rows=_IN_TERMINAL, rest_in=IN_CSV)
        rows = list(self.details["worst"])
        times = Times.among(row["history"] for row in rows)
        cards = tuple(self._picture(row, times) for row in rows[:_PASSAGES])
        if cards:
            legend = "Green: found. Red: made up. Blue: missed."
            yield Gallery(f"Worst pictures: {self.words}", cards, legend=legend)
        facts = FactColumns(rows, self.page.facts.path)
        heads = (Column("picture"), *facts.columns, *(Column(name, whole) for name in ("found", "made up", "missed")))
        heads += (Column("mean IoU", number), Column("wrong over the epochs", Cell.SPARKLINE))
        cells = tuple(
            (
                *(str(row["sample_id"]), *facts.cells(row), row["tp"], row["fp"], row["fn"], row["mean_iou"]),
                _wrong_over(row, times),
            )
            for row in rows
        )
        note = self._listed("worst", facts.note)
        yield Table(self._name("worst"), f"Worst pictures: {self.words}", heads, cells, note, rest_in=IN_CSV)

    def _picture(self, row: Mapping[str, Any], times: Times) -> Card:
        wrong = f"{row['fn']} missed, {row['fp']} made up"
        return Card(
            key=self._key(row),
            title=sample_name(row["sample_id"]),
            lines=(f"{row['tp']} found, IoU {_short(row['mean_iou'])}",),
            tone=Tone.MAX,
            image=self.page.images.get((row["mode"], row["ds_id"], row["sample_id"])),
            sparkline=_wrong_over(row, times),
            deep_link=str(row["sample_id"]),
            verdict=wrong,
            facts=on_card(row, self.page.facts.path),
        )

    def _key(self, row: Mapping[str, Any]) -> str:
        return self.page.keys(row["mode"], row["ds_id"], row["sample_id"])


def _wrong_over(row: Mapping[str, Any], times: Times) -> tuple[float | None, ...]:
    """How much was missed or made up in a picture at every epoch."""
    return times.course({**one, "value": float(one["fp"] + one["fn"])} for one in row["history"])


def _corners(row: Mapping[str, Any]) -> str:
    return ", ".join(exact(float(f"{row[name]:.5g}")) for name in ("x0", "y0", "x1", "y1"))


def _badness(group: Mapping[str, Any]) -> float:
    """What a group of samples is ordered by, the highest first."""
    if (good := group.get("micro_f1")) is not None:
        return -float(good)
    if "mean_iou" in group:
        return -float(group["average_precision"] or 0.0)
    return float(group.get("mae") or group.get("loss") or 0.0)


def _short(value: float | None) -> str:
    return "–" if value is None else short(value, 3)


def _percent(share: float | None) -> str:
    return percent(share, 1)


def _as_int(value: float | None) -> int | None:
    return None if value is None else int(value)
