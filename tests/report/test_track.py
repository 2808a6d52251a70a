"""`xai track-report`: everything about a run, from a run made by the real recorder."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from markupsafe import escape

import xaicli
from tests.recorded_run import MISLABELLED, SAMPLES, record
from xaicli.api import open_run
from xaicli.errors import XaiError
from xaicli.report.charts import LineChart, Multiples, ScatterChart
from xaicli.report.model import Card, Figures, Gallery, MapGrid, Report, Table, Text, Views

Xai = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = record(tmp_path_factory.mktemp("track") / "run")
    described = {"models": {"net": {"class": "Linear", "parameters": 6, "summary": "Linear(\n  in=2\n)"}}}
    (folder / "state").mkdir(exist_ok=True)
    (folder / "state" / "described.json").write_text(json.dumps({"version": 1, "described": described}))
    return folder


@pytest.fixture(scope="module")
def report(run: Path) -> Report:
    return open_run(run).report(max=3, min=2, ids=[10]).report


def section(report: Report, anchor: str) -> list[object]:
    blocks = next(s.blocks for s in report.sections if s.anchor == anchor)
    return [
        inner for b in blocks for inner in ([x for v in b.views.values() for x in v] if isinstance(b, Views) else [b])
    ]


def test_the_mislabelled_samples_stand_at_the_top(run: Path, report: Report) -> None:
    result = open_run(run).report(max=3, min=2)
    assert {row["sample_id"] for row in result.data.to_dicts() if row["group"] == "max"} == set(MISLABELLED)
    assert {s["sample_id"] for s in json.loads(result.to_json())["suspects"][:3]} == set(MISLABELLED)
    cards = next(b for b in section(report, "suspects") if isinstance(b, Gallery)).cards
    assert {card.deep_link for card in cards[:3]} == {str(i) for i in MISLABELLED}
    assert all(card.image is not None and "→" in card.verdict for card in cards[:3])


def test_the_json_holds_suspects_and_label_issues_with_their_reasons(run: Path) -> None:
    found = json.loads(open_run(run).report().to_json())
    assert found["command"] == "track-report"
    assert found["label_issues"]
    for row in (*found["suspects"], *found["label_issues"]):
        assert {"sample_id", "score", "reason", "label", "suggested_label"} <= set(row)
        assert row["reason"]
    assert {row["group"] for row in found["rows"]} == {"max", "min"}


def test_a_truth_scores_the_rankings_in_the_json_and_on_the_page(run: Path, tmp_path: Path) -> None:
    truth = tmp_path / "truth.csv"
    truth.write_text("sample_id,mislabelled\n" + "".join(f"{i},{int(i in MISLABELLED)}\n" for i in range(SAMPLES)))
    result = open_run(run).report(truth=truth)
    assert json.loads(result.to_json())["truth"]["suspects"]["auroc"] == 1.0
    assert "truth" in {b.name for b in section(result.report, "suspects") if isinstance(b, Table)}
    with pytest.raises(XaiError, match="cannot be read"):
        open_run(run).report(truth=tmp_path / "none.csv")


def test_every_part_is_there(report: Report) -> None:
    kinds = {s.anchor: {type(b) for b in section(report, s.anchor)} for s in report.sections}
    assert {LineChart, Gallery, Table} <= kinds["histories"]
    assert {LineChart, Multiples, Table} <= kinds["labels"]
    assert ScatterChart in kinds["data-map"]
    assert Table in kinds["suspects"] & kinds["label-issues"] & kinds["system"]
    assert kinds["scalars"] - {Text}
    assert not any(MapGrid in found for found in kinds.values())


def test_the_sentence_gives_the_figures(report: Report) -> None:
    assert re.match(
        r"The median loss falls from [\d.]+ to [\d.]+\. The 3 highest samples are at [\d.]+ to [\d.]+; ",
        report.sentence,
    )
    assert "Some labels are wrong on purpose." in report.sentence
    assert re.search(r"Most suspicious label: #(7|21|42), (never learned|right 1 of 6 times)", report.sentence)


def test_card_line_and_row_of_a_sample_share_a_key(report: Report) -> None:
    blocks = section(report, "histories")
    card = next(c for b in blocks if isinstance(b, Gallery) for c in b.cards if c.deep_link == "10")
    chart = next(b for b in blocks if isinstance(b, LineChart))
    table = next(b for b in blocks if isinstance(b, Table))
    assert [line.name for line in chart.series if line.key == card.key] == ["#10"]
    assert [row[1] for row, key in zip(table.rows, table.keys, strict=True) if key == card.key] == ["10"]


def test_how_the_run_was_made_is_told(report: Report) -> None:
    tables = {b.title: dict(b.rows) for b in section(report, "system") if isinstance(b, Table) and len(b.columns) == 2}
    assert tables["Configuration"]["lr"] == "0.1"
    assert tables["Packages"]["numpy"] == np.__version__
    assert tables["Model net"]["parameters"] == "6"
    assert "Linear" in tables["Model net"]["layers"]
    assert any(isinstance(b, Table) and b.title == "Attempts" for b in section(report, "system"))
    assert dict(report.made)["rows read"] == f"{SAMPLES * 6} rows"


def test_the_files_beside_the_page(run: Path, tmp_path: Path, xai: Xai) -> None:
    status, out, err = xai("track-report", run, "-o", tmp_path, "-q", "--max", 2, "--min", 1)
    assert (status, err) == (0, "")
    written = {Path(line).name for line in out.splitlines()}
    assert written == {path.name for path in tmp_path.iterdir()}
    assert {"track-report.html", "report.json", "samples.csv", "labels.csv", "samples-eval-loss.png"} <= written
    with (tmp_path / "samples.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 6
    assert set(rows[0]) >= {
        "mode",
        "ds_id",
        "metric",
        "sample_id",
        "label",
        "group",
        "rank",
        "score",
        "epoch",
        "step",
        "value",
    }
    found = json.loads((tmp_path / "report.json").read_text())
    assert [Path(path).name for path in found["outputs"]] == [Path(line).name for line in out.splitlines()]
    assert (tmp_path / "track-report.html").stat().st_size <= 500_000


def test_the_same_run_gives_the_same_bytes(run: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        open_run(run).report(max=1, min=1).save(tmp_path / name, ["html", "csv"])
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_json_on_standard_output_is_one_object(run: Path, tmp_path: Path, xai: Xai) -> None:
    status, out, _ = xai("track-report", run, "--json", "-o", tmp_path, "--format", "csv")
    assert status == 0
    assert json.loads(out)["outputs"] == [
        str(tmp_path / name) for name in ("samples.csv", "labels.csv", "suspects.csv")
    ]


def test_the_terminal_shows_samples_and_suspects_only(run: Path, tmp_path: Path, xai: Xai) -> None:
    _, out, _ = xai("track-report", run, "-o", tmp_path, "--format", "md")
    assert "Suspected labels" in out
    assert "score: the sample's rank among all by its evidence" in " ".join(out.split())
    assert "never learned" in out
    assert "Configuration" not in out
    parts = "Labels, Data map, Label issues, Scalars and custom graphs, System and traceability"
    assert f"--format html shows more: {parts}" in " ".join(out.split())
    assert max(len(line) for line in out.splitlines() if not line.startswith("wrote")) <= 80


def test_a_sudden_rank_change_is_told_in_terminal_notebook_and_on_the_page(tmp_path: Path, xai: Xai) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        for epoch in range(1, 9):
            loss = np.arange(40.0)
            swapped = 2 * (epoch % 15)  # two neighbours change places in each epoch, as is usual
            loss[[swapped, swapped + 1]] = loss[[swapped + 1, swapped]]
            loss[38] = -1 if epoch >= 6 else loss[38]
            run.log_samples(sample_id=np.arange(40), loss=loss, epoch=epoch, mode="eval")
    result = open_run(tmp_path / "run").report()
    found = json.loads(result.to_json())["rank_jumps"]
    assert [(row["sample_id"], row["epoch"]) for row in found] == [(38, 6)]
    code, out, _ = xai("track-report", tmp_path / "run", "-o", tmp_path / "out")
    assert code == 0
    assert found[0]["reason"] in " ".join(out.split())
    assert "the page shows more: " in out
    notebook = result._repr_mimebundle_()["text/html"]
    assert all(escape(found[0]["reason"]) in markup for markup in (notebook.replace("&#x27;", "&#39;"), result.html()))


def test_a_reports_folder_that_leads_elsewhere_is_refused(tmp_path: Path, xai: Xai) -> None:
    run = record(tmp_path / "run", samples=4, epochs=1, images=False)
    (tmp_path / "elsewhere").mkdir()
    (run / "reports").symlink_to(tmp_path / "elsewhere")
    status, _, err = xai("track-report", run)
    assert status == 1
    assert "is a link" in err
    assert "-o DIR" in err
    assert not list((tmp_path / "elsewhere").iterdir())


def bare_run(folder: Path, **columns: object) -> Path:
    """A run of 6 samples with only what is given."""
    with xaicli.Run(folder) as run:
        for epoch in range(1, 4):
            run.log_samples(sample_id=[f"id {i}" for i in range(6)], mode="eval", epoch=epoch, **columns)  # type: ignore[arg-type]
    return folder


def test_what_a_run_lacks_is_left_out_with_a_line_saying_why(tmp_path: Path) -> None:
    result = open_run(bare_run(tmp_path / "run", loss=np.arange(6.0))).report()
    texts = {
        s.anchor: " ".join(b.text for b in section(result.report, s.anchor) if isinstance(b, Text))
        for s in result.report.sections
    }
    assert "label_prob" in texts["data-map"]
    for anchor in ("labels", "suspects", "label-issues", "scalars"):
        assert texts[anchor], anchor
    assert "could not be computed" not in " ".join(texts.values()) + " ".join(result.report.warnings)
    assert "id 5" in result.html()


@pytest.mark.parametrize("how", [{"nan": True}, {"samples": 1, "epochs": 1}], ids=str)
def test_odd_runs_make_whole_pages(tmp_path: Path, how: dict[str, bool]) -> None:
    result = open_run(record(tmp_path / "run", **how)).report()  # type: ignore[arg-type]
    paths = result.save(tmp_path / "out")
    assert (tmp_path / "out" / "track-report.html") in paths
    assert "could not be computed" not in " ".join(result.report.warnings)


def test_nan_only_is_said(tmp_path: Path) -> None:
    report = open_run(record(tmp_path / "run", nan=True)).report().report
    assert report.sentence.startswith("No sample has a finite loss.")


def test_a_failing_part_does_not_take_the_page_with_it(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> object:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("xaicli.api.gathering.label_issues", broken)
    result = open_run(run).report()
    assert any("label issues could not be computed: ZeroDivisionError: oh" in w for w in result.report.warnings)
    assert "Most suspicious" in result.report.sentence


def test_a_damaged_picture_file_is_named_and_left_out(tmp_path: Path) -> None:
    run = record(tmp_path / "run", samples=8, epochs=2)
    file = next((run / "media").glob("*.parquet"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    report = open_run(run).report().report
    assert any(file.name in warning for warning in report.warnings)
    assert not any(c.image for s in report.sections for b in s.blocks if isinstance(b, Gallery) for c in b.cards)


def cards_of(report: Report) -> dict[str, Card]:
    found = [b for s in report.sections for b in s.blocks if isinstance(b, Gallery)]
    return {card.deep_link: card for block in found for card in block.cards}


def test_a_run_without_scalars_says_so(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1], mode="eval", loss=[1.0])
    (block,) = section(open_run(tmp_path / "run").report().report, "scalars")
    assert isinstance(block, Text)
    assert block.text == "None: run.log was not called."


def test_every_card_leads_to_its_saliency(report: Report) -> None:
    assert cards_of(report)["7"].links == (("saliency", "saliency.html#s=7&at=eval%2F"),)
    assert cards_of(report)["7"].place == "eval/"


def test_a_sample_without_a_thumbnail_shows_its_kept_input(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1, 2, 3, 4], mode="train", loss=[1.0, 2.0, 3.0, 4.0])
        run.log_images([1], np.full((1, 4, 4), 7, np.uint8))
        run.log_inputs([1, 2], np.ones((2, 3, 200, 100), np.float32))
        run.log_inputs([3], np.full((1, 5, 5), 9, np.uint8))
        run.log_inputs([4], np.ones((1, 12), np.float32))
    found = {
        name: card.image for name, card in cards_of(open_run(tmp_path / "run").report(mode="train").report).items()
    }
    assert {name: image and (image.height, image.width, image.channels) for name, image in found.items()} == {
        "1": (4, 4, 1),
        "2": (66, 33, 3),
        "3": (5, 5, 1),
        "4": None,
    }
    assert found["2"] is not None
    assert set(found["2"].pixels) == {255}


def test_hostile_names_stay_in_the_folder_and_on_the_page(tmp_path: Path) -> None:
    hostile = "../../<img src=x onerror=1>"
    folder = tmp_path / "run<b>\u202e"
    with xaicli.Run(folder, config={"<script>": "</script><script>1"}) as run:
        for epoch in (1, 2):
            values: dict[str, object] = {hostile: [1.0 * epoch, 2.0]}
            run.log_samples(
                sample_id=["a<b>", "../b"], mode="eval", ds_id="../../ds<i>", epoch=epoch, label=["<u>", "v"], **values
            )  # type: ignore[arg-type]
    result = open_run(folder).report()
    paths = result.save(tmp_path / "out")
    assert {path.parent for path in paths} == {tmp_path / "out"}
    assert all(re.fullmatch(r"[a-z0-9.-]+", path.name) for path in paths)
    html = (tmp_path / "out" / "track-report.html").read_text()
    assert not re.search(r"<(img|i|u|script>1)\b", html)
    assert "\u202e" not in html
    assert {path.name for path in tmp_path.iterdir()} == {folder.name, "out"}


def test_modes_and_metrics_are_parts_of_their_own(run: Path) -> None:
    report = open_run(run).report(metric=["loss", "margin"], max=1, min=1).report
    assert [s.title for s in report.sections][:2] == ["Histories: loss · eval", "Histories: margin · eval"]
    anchors = [s.anchor for s in report.sections]
    assert len(anchors) == len(set(anchors))
    charts = [
        b.name for s in report.sections for b in section(report, s.anchor) if isinstance(b, (LineChart, Multiples))
    ]
    assert len(charts) == len(set(charts))


def test_rows_that_were_not_recorded_are_told_with_the_reason(tmp_path: Path) -> None:
    run = record(tmp_path / "run", samples=6, epochs=1, images=False)
    stats = next((run / "attempts").glob("*.stats"))
    facts = json.loads(stats.read_text()) | {"rows_dropped": 9, "reasons": {"disk full": 9}}
    del facts["check"]
    stats.write_text(json.dumps(facts))
    result = open_run(run).report()
    assert "9 rows were not recorded: disk full" in result.report.warnings
    assert result.answer.counts.dropped == 9


def test_suspects_have_their_labels_names_beside_the_numbers(xai, run: Path, tmp_path: Path) -> None:
    assert xai("track-report", run, "-o", tmp_path, "--format", "csv")[0] == 0
    names = json.loads((run / "xai.json").read_text())["label_names"]
    with (tmp_path / "suspects.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows
    for row in rows:
        assert row["label_name"] == names[int(row["label"])]
        assert row["suggested_name"] == (names[int(row["suggested_label"])] if row["suggested_label"] else "")


def test_the_page_of_a_regression_asks_for_nothing_that_it_cannot_have(tmp_path: Path) -> None:
    values = np.linspace(0.0, 10.0, 60)
    given = values.copy()
    given[17] = 90.0
    with xaicli.Run(tmp_path / "run", task="regression") as run:
        for epoch in run.epochs(4):
            off = np.sin(np.arange(60.0) * (epoch + 1)) / (epoch + 1)
            run.log_samples(sample_id=np.arange(60), label=given, prediction=values + off, mode="eval", epoch=epoch)
    report = open_run(tmp_path / "run").report().report
    assert not [warning for warning in report.warnings if "keep_probs" in warning or "logits" in warning]
    assert "label-issues" not in [part.anchor for part in report.sections]
    assert "Most suspicious label: #17, mean absolute residual" in report.sentence
    assert "…" not in report.sentence


def test_text_ids_are_named_as_they_are(tmp_path: Path) -> None:
    ids = [f"s3://bucket/a/long/way/to/the/pictures/of/the/training/{i:05d}.JPEG" for i in range(40)]
    logits = np.zeros((40, 2))
    logits[:, 0] = 3.0
    label = [1, *[0] * 39]
    with xaicli.Run(tmp_path / "run") as run:
        for epoch in (1, 2, 3):
            run.log_samples(sample_id=ids, label=label, logits=logits, mode="eval", epoch=epoch)
    report = open_run(tmp_path / "run").report(max=1, min=0).report
    chart = next(block for block in section(report, "histories") if isinstance(block, LineChart))
    assert ids[0] in [line.name for line in chart.series]


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_the_share_right_is_of_the_last_pass_of_the_last_epoch(tmp_path: Path, engine: str) -> None:
    """Ten samples: of epoch 2 all are right in the first two passes, three of ten in the last."""
    label = np.arange(10) % 2
    with xaicli.Run(tmp_path / "run") as run:
        for epoch in (1, 2):
            for number in (0, 1, 2):
                wrong = (epoch == 2) & (number == 2) & (np.arange(10) < 7)
                run.log_samples(
                    sample_id=np.arange(10),
                    label=label,
                    prediction=np.where(wrong, 1 - label, label),
                    loss=1.0 + np.arange(10),
                    mode="eval",
                    epoch=epoch,
                    eval_pass=number,
                )
    report = open_run(tmp_path / "run").report(engine=engine).report
    (figures,) = (block for block in report.sections[0].blocks if isinstance(block, Figures))
    shown = {figure.caption: figure.value for figure in figures.figures}
    assert shown["of 10 eval samples with a prediction at epoch 2 are predicted as labelled"] == "30.0 %"


def test_why_there_are_no_label_issues_is_a_sentence_that_says_that_alone(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        for ds_id in ("a", "b"):
            known = {"sample_id": [1, 2, 3], "label": [0, 1, 1], "prediction": [0, 1, 0], "loss": [1.0, 2.0, 3.0]}
            run.log_samples(**known, mode="train", ds_id=ds_id, epoch=1)
    result = open_run(tmp_path / "run").report()
    assert any("no eval rows" in said for said in result.answer.warnings)
    (why,) = section(result.report, "label-issues")
    assert isinstance(why, Text)
    said = "No class probabilities of train {} were kept: record them with Run(..., keep_probs=True)."
    assert why.text == f"{said.format('a')} {said.format('b')}"
