"""The saliency page: pictures of maps, trust figures, links, every kind of input."""

from __future__ import annotations

import base64
import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_hex
from PIL import Image as Pillow
from PIL import ImageDraw

from xaicli.api.saliency_result import SaliencyResult
from xaicli.attribution.answer import changes_of
from xaicli.attribution.explanation import (
    Change,
    CheckpointColumn,
    Explanation,
    InputKind,
    InputView,
    Saliency,
    SaliencyMap,
    SanityStep,
    Trust,
)
from xaicli.render.pictures import Sheet, sheet
from xaicli.render.terminal import as_text
from xaicli.report.charts import BarChart, LineChart
from xaicli.report.model import MapGrid, MapRow, Report, Table, Views
from xaicli.report.page import RunFacts
from xaicli.report.saliency import MAGNITUDE, SIGNED, saliency_report
from xaicli.results import Result

METHODS = ("gradient", "smint")


def explanation(
    sample_id: int | str = 7, *, side: int = 8, wrong: bool = False, checkpoint: int = 0, flat: bool = False
) -> Explanation:
    """One image with a map that rises to the right; the signed attribution is negative in the upper half."""
    values = np.tile(np.linspace(0, 1, side, dtype=np.float32), (side, 1))
    attribution = np.stack([values, values]).astype(np.float32)
    attribution[:, : side // 2] *= -1
    picture = np.full((side, side, 3), 200, np.uint8)
    return Explanation(
        sample_id=sample_id,
        label=1,
        target=2 if wrong else 1,
        prediction=2 if wrong else 1,
        label_prob=0.25,
        top_prob=0.5,
        top=(("owl" if wrong else "cat", 0.5), ("dog", 0.2), ("<b>", 0.1)),
        target_name="owl" if wrong else "cat",
        label_name="cat",
        prediction_name="owl" if wrong else "cat",
        correct=not wrong,
        inputs=(InputView("", InputKind.IMAGE, picture),),
        maps=tuple(SaliencyMap(m, "", values, attribution, flat) for m in METHODS),
        trust={"gradient": Trust(None, None, flat), "smint": Trust(0.01, 0.9, flat, {"deletion": 0.3})},
        evaluations=24,
        checkpoint=checkpoint,
    )


def result(*explanations: Explanation, facts: RunFacts | None = None, **more: object) -> SaliencyResult:
    saliency = Saliency(explanations, METHODS, "smint", **more)  # type: ignore[arg-type]
    return SaliencyResult(saliency, run="runs/a", facts=facts)


def grid_of(report: Report) -> MapGrid:
    blocks = report.sections[0].blocks
    return next(b for b in blocks if isinstance(b, MapGrid))


def picture_of(html: str, name: str) -> Pillow.Image:
    data = re.search(rf'class="over {name} pixels" src="data:image/png;base64,([^"]+)"', html)
    assert data is not None
    return Pillow.open(io.BytesIO(base64.b64decode(data[1]))).convert("RGB")


def test_a_row_a_sample_with_each_map_and_the_overlay() -> None:
    grid = grid_of(result(explanation(7), explanation(8, wrong=True)).report)
    assert [row.title for row in grid.rows] == ["#7", "#8"]
    assert [panel.title for panel in grid.rows[0].panels] == [
        "Gradient",
        "SmInt",
        "Overlay: SmInt",
    ]
    assert grid.rows[0].lines == ("label cat (0.25)", "predicted cat ✓")
    assert grid.rows[1].lines == ("label cat (0.25)", "predicted owl")
    assert (grid.rows[0].wrong, grid.rows[1].wrong[:10]) == ("", "predicted ")
    assert grid.rows[1].wrong in grid.rows[1].lines
    assert grid.rows[0].panels[1].lines == ("delta 0.01", "agreement 0.90")


def test_what_a_sample_is_stands_beside_its_map_and_is_not_marked_as_wrong() -> None:
    path = "s3://bucket/train/a-long-folder-of-pictures/ILSVRC2012_val_00000983.JPEG"
    found = result(explanation(8, wrong=True))
    known = pl.DataFrame([{"sample_id": 8, "facts": {"path": path, "bright": 0.5}}])
    answer = replace(found.answer, data=known)
    report = saliency_report(answer, found.saliency)
    (shown,) = grid_of(report).rows
    assert (shown.lines, shown.wrong) == (("label cat (0.25)", "predicted owl"), "predicted owl")
    assert [(name, value.text) for name, value in shown.facts] == [("path", path), ("bright", "0.5")]
    html = Result(answer, lambda: report).html()
    assert re.findall(r'class="flat">([^<]*)<', html) == ["predicted owl"]
    assert f">{path}<" in html


def test_the_sentence_counts_what_is_wrong_and_flat() -> None:
    sentence = result(explanation(1), explanation(2, wrong=True), explanation(3, flat=True)).report.sentence
    assert sentence.startswith("1 of 3 predicted wrongly. Two halves of the draws agree to 0.9")
    assert "2 maps are flat" in sentence


def test_the_pictures_show_the_maps() -> None:
    html = result(explanation()).html()
    clipped, signed = picture_of(html, "clipped"), picture_of(html, "signed")
    assert clipped.size == (8, 8)
    assert clipped.getpixel((0, 0)) == (0, 0, 3)
    assert clipped.getpixel((7, 0)) == (252, 254, 164)
    against, for_it = signed.getpixel((7, 0)), signed.getpixel((7, 7))
    assert isinstance(against, tuple)
    assert isinstance(for_it, tuple)
    assert against[2] > against[0]
    assert for_it[0] > for_it[2]


def test_the_legend_shows_the_palettes() -> None:
    html = result(explanation()).html()
    assert "low <i></i> high" in html
    assert "against <i></i> for" in html
    for kind, palette in (("size", MAGNITUDE), ("sign", SIGNED)):
        stops = re.findall("#[0-9a-f]{6}", html.split(f".ramp .{kind} i")[1].split("}")[0])
        colours = colormaps[palette](np.linspace(0, 1, len(stops)))
        assert stops == [to_hex(colour) for colour in colours]


def test_the_input_is_embedded_once() -> None:
    html = result(explanation()).html()
    (picture,) = re.findall(r'<image id="([^"]+)"', html)
    assert len(re.findall(rf'href="#{picture}"', html)) == 1 + len(METHODS) + 1


def test_no_images_leaves_out_inputs_and_overlays(tmp_path: Path) -> None:
    found = result(explanation())
    html = found.html(no_images=True)
    assert "<image" not in html
    assert "Overlay" not in html.split('id="answer"')[0]
    assert picture_of(html, "clipped")
    paths = found.save(tmp_path, ["png"], no_images=True)
    assert [p.name for p in paths] == ["saliency.png"]


@pytest.mark.parametrize(
    ("formats", "files"),
    [
        (["html"], {"saliency.html"}),
        (["md", "png"], {"saliency.md", "saliency.png"}),
        (["json"], {"saliency.json", "maps.npz"}),
        (["csv"], {"saliency.csv", "maps.npz"}),
    ],
)
def test_the_maps_numbers_come_with_the_formats_that_hold_numbers(
    tmp_path: Path, formats: list[str], files: set[str]
) -> None:
    found = result(explanation())
    assert {p.name for p in found.save(tmp_path / "out", formats)} == files
    assert {p.name for p in (tmp_path / "out").iterdir()} == files


def test_one_sheet_or_a_picture_a_sample_and_a_row_a_map_in_the_csv(tmp_path: Path) -> None:
    found = result(explanation(7), explanation("../x"))
    names = {p.name for p in found.save(tmp_path)}
    assert names == {"saliency.html", "saliency.png", "saliency.csv", "maps.npz", "saliency.json"}
    more = {p.name for p in found.save(tmp_path, ["png"], pictures=True)}
    assert more == {"saliency.png", "saliency-001.png", "saliency-002.png"}
    with (tmp_path / "saliency.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["sample_id"], row["method"]) for row in rows][:2] == [("7", "gradient"), ("7", "smint")]
    assert rows[1]["agreement"] == "0.9"


def test_every_sheet_says_which_it_is_and_a_notebook_shows_more_than_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("xaicli.render.figure._ROWS_OF_SHEET", 2)
    monkeypatch.setattr("xaicli.render.notebook._SHEETS", 2)
    drawn: list[tuple[str, list[str]]] = []

    def noting(grid: MapGrid, rows: tuple[MapRow, ...]) -> Sheet:
        drawn.append((grid.title, [row.title for row in rows]))
        return sheet(grid, rows)

    monkeypatch.setattr("xaicli.render.notebook.sheet", noting)

    def shown(n: int) -> str:
        return str(result(*(explanation(i) for i in range(n)))._repr_mimebundle_()["text/html"])

    assert (shown(2).count("<img"), drawn.pop()) == (1, ("Saliency", ["#0", "#1"]))
    html = shown(3)
    assert drawn == [("Saliency · sheet 1 of 2", ["#0", "#1"]), ("Saliency · sheet 2 of 2", ["#2"])]
    assert html.count("<img") == 2
    assert "sheets of" not in html
    assert "<p>2 of 3 sheets of Saliency: .show() has every sample</p>" in shown(5)


def test_numbered_pictures_of_the_call_before_do_not_stay_beside_the_new_ones(tmp_path: Path) -> None:
    many = result(*(explanation(n) for n in range(20)))
    before = {path.name for path in many.save(tmp_path, pictures=True)}
    assert {"saliency-sheet-2.png", "saliency-003.png", "saliency-020.png"} <= before
    mine = tmp_path / "saliency-099.png"
    mine.write_bytes(b"a picture of the user's")
    few = result(explanation(7), explanation(9))
    few.save(tmp_path, ["html"])
    assert before <= {path.name for path in tmp_path.iterdir()}
    with pytest.warns(
        UserWarning, match="removed pictures .*: saliency-001.png, saliency-002.png, saliency-003.png and"
    ):
        few.save(tmp_path)
    left = {path.name for path in tmp_path.glob("*.png")}
    assert left == {"saliency.png", mine.name}


def test_history_is_linked_where_there_is_a_run() -> None:
    facts = RunFacts("runs/a")
    assert grid_of(result(explanation("a/b"), facts=facts).report).rows[0].links == (
        ("history", "track-report.html#s=a%2Fb"),
    )
    assert grid_of(result(explanation()).report).rows[0].links == ()


def test_trust_figures_are_a_table_in_the_terminal() -> None:
    text = as_text(result(explanation(wrong=True)).report)
    assert re.search(r"^7 +cat +owl +smint", text, re.MULTILINE)
    assert re.search(r"smint +0\.01 +0\.9\n", text)
    assert re.search(r"smint +0\.3", text)


def test_what_speaks_against_a_map_is_told_apart_on_its_card() -> None:
    one = explanation(flat=True)
    worse = Trust(0.01, 0.9, True, {"deletion": 0.3, "deletion_random": 0.1})
    html = result(replace(one, trust=one.trust | {"smint": worse})).html()
    assert 'worse than random · <span class="flat">flat</span>' in html


def test_checkpoints_are_columns_in_training_order() -> None:
    columns = (CheckpointColumn("a.pt", epoch=1), CheckpointColumn("b.pt", epoch=5))
    change = Change(7, 1, "smint", 1, 0.4)
    report = result(explanation(), explanation(checkpoint=1), checkpoints=columns, changes=(change,)).report
    views = report.sections[0].blocks[0]
    assert isinstance(views, Views)
    assert list(views.views) == ["SmInt", "Gradient"]
    (grid,) = views.views["SmInt"]
    assert isinstance(grid, MapGrid)
    assert [panel.title for panel in grid.rows[0].panels] == ["a.pt · epoch 1", "b.pt · epoch 5"]
    assert grid.toggles == "checkpoints"
    moved = next(b for s in report.sections if s.anchor == "changes" for b in s.blocks)
    assert isinstance(moved, Table)
    assert moved.rows == (("7", "smint", "b.pt · epoch 5", 0.4),)


def test_maps_of_one_sample_are_told_apart_by_checkpoint_output_and_target() -> None:
    def maps_of(outputs: tuple[str, ...], targets: tuple[str, ...], checkpoints: int) -> SaliencyResult:
        rows = [
            replace(explanation(checkpoint=c), output=output, target=n, target_name=name)
            for output in outputs
            for n, name in enumerate(targets)
            for c in range(checkpoints)
        ]
        columns = tuple(CheckpointColumn(name) for name in "ab"[:checkpoints])
        changes = changes_of(rows, ("smint",)) if checkpoints > 1 else ()
        return result(*rows, checkpoints=columns, changes=changes)

    def table(answer: SaliencyResult, name: str) -> Table:
        return next(b for s in answer.report.sections for b in s.blocks if isinstance(b, Table) and b.name == name)

    one = table(maps_of(("",), ("cat",), 1), "trust")
    assert [c.title for c in one.columns[:4]] == ["sample", "label", "predicted", "method"]
    of_targets = table(maps_of(("",), ("cat", "owl"), 1), "trust")
    assert [c.title for c in of_targets.columns[:4]] == ["sample", "target", "label", "predicted"]
    assert [row[1] for row in of_targets.rows] == ["cat", "cat", "owl", "owl"]
    of_outputs = table(maps_of(("cls", "aux"), ("cat",), 1), "trust")
    assert [c.title for c in of_outputs.columns[:4]] == ["sample", "output", "label", "predicted"]
    whole = maps_of(("cls", "aux"), ("cat", "owl"), 2)
    for name in ("trust", "evaluation"):
        found = table(whole, name)
        assert [c.title for c in found.columns[:4]] == ["sample", "checkpoint", "output", "target"]
        of_gradient = [row[1:4] for row in found.rows if "gradient" in row]
        assert of_gradient == [(c, o, t) for o in ("cls", "aux") for t in ("cat", "owl") for c in "ab"]
    moved = table(whole, "changes")
    assert [c.title for c in moved.columns[:4]] == ["sample", "output", "target", "method"]
    assert [row[1:3] for row in moved.rows] == [(o, t) for o in ("cls", "aux") for t in ("cat", "owl")]
    told = whole.answer.extra["changes"]
    assert [(change["output"], change["target"]) for change in told] == [("cls", 0), ("cls", 1), ("aux", 0), ("aux", 1)]
    assert "output" not in maps_of(("",), ("cat",), 2).answer.extra["changes"][0]


def test_randomised_models_are_a_table() -> None:
    report = result(explanation(), sanity=(SanityStep("fc", {"gradient": 0.1, "smint": 0.2}),)).report
    (table,) = next(s for s in report.sections if s.anchor == "sanity").blocks
    assert isinstance(table, Table)
    assert table.rows == (("fc", 0.1, 0.2),)


def other_input(kind: InputKind, values: np.ndarray, tokens: tuple[str, ...] = ()) -> SaliencyResult:
    strengths = np.abs(values).reshape(1, -1).astype(np.float32)
    view = InputView("", kind, values=values.astype(np.float32), tokens=tokens)
    maps = tuple(SaliencyMap(m, "", strengths / strengths.max(), values.astype(np.float32)) for m in METHODS)
    base = explanation()
    return result(Explanation(**{**vars(base), "inputs": (view,), "maps": maps}))


def test_a_toggle_of_several_inputs_is_called_by_the_method() -> None:
    base = explanation()
    (view,), maps = base.inputs, base.maps
    inputs = tuple(InputView(name, view.kind, view.picture) for name in "ab")
    both = tuple(SaliencyMap(m.method, name, m.values, m.attribution) for m in maps for name in "ab")
    answer = result(Explanation(**{**vars(base), "inputs": inputs, "maps": both}))
    panels = grid_of(answer.report).rows[0].panels
    assert [(panel.title, panel.toggle) for panel in panels[:2]] == [
        ("Gradient · a", "Gradient"),
        ("Gradient · b", "Gradient"),
    ]
    assert answer.html().count(">Gradient</label>") == 1


def test_tables_get_bars_the_strongest_first() -> None:
    panel = grid_of(other_input(InputKind.TABULAR, np.array([0.5, -2.0, 1.0])).report).rows[0].panels[0]
    assert isinstance(panel.chart, BarChart)
    assert panel.chart.names == ("feature 1", "feature 2", "feature 0")
    assert panel.chart.values == (-2.0, 1.0, 0.5)


def test_features_that_are_not_drawn_are_counted_and_the_choice_is_said() -> None:
    values = np.linspace(1, 25, 25)
    answer = other_input(InputKind.TABULAR, values)
    panels = grid_of(answer.report).rows[0].panels
    for panel in panels:
        assert isinstance(panel.chart, BarChart)
        assert panel.chart.names == tuple(f"feature {i}" for i in range(24, 4, -1))
        # 310 of 325: features 0 to 4 are 1 to 5.
        assert panel.lines[-2:] == ("20 of 25 features: the strongest of SmInt", "95 % of this map")
    assert "20 of 25 features" in answer.html()
    few = grid_of(other_input(InputKind.TABULAR, values[:20]).report).rows[0].panels
    assert [panel.lines for panel in few] == [(), ("delta 0.01", "agreement 0.90")]


def test_features_are_called_as_their_columns() -> None:
    base = other_input(InputKind.TABULAR, np.array([0.5, -2.0])).saliency.explanations[0]
    named = replace(base, inputs=(replace(base.inputs[0], features=("age", "income €")),))
    panel = grid_of(result(named).report).rows[0].panels[0]
    assert isinstance(panel.chart, BarChart)
    assert panel.chart.names == ("income €", "age")


def written(monkeypatch: pytest.MonkeyPatch, answer: SaliencyResult) -> list[str]:
    """What the sheet of pictures says, in order."""
    drawn: list[str] = []
    text = ImageDraw.ImageDraw.text
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda *a, **k: drawn.append(a[2]) or text(*a, **k))
    sheet(grid := grid_of(answer.report), grid.rows)
    return drawn


def test_tokens_that_a_sheet_does_not_list_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = tuple(f"word{i}" for i in range(12))
    said = written(monkeypatch, other_input(InputKind.TOKENS, np.arange(1.0, 13.0), tokens))
    assert [text for text in said if text.startswith("word")] == 2 * [f"word{i}" for i in range(11, 1, -1)]
    assert sum("the 10 strongest of 12 tokens" in text for text in said) == 2
    said = written(monkeypatch, other_input(InputKind.TOKENS, np.arange(1.0, 11.0), tokens[:10]))
    assert not any("strongest" in text for text in said)


def test_classes_that_are_not_shown_are_counted() -> None:
    note = grid_of(result(replace(explanation(), n_classes=10)).report).note
    assert note.endswith(" Beside each sample: the 3 most probable of 10 classes.")
    assert "most probable" not in grid_of(result(replace(explanation(), n_classes=3)).report).note


def of_signal(values: np.ndarray, attribution: np.ndarray, *, axis: int | None) -> SaliencyResult:
    """A signal and its map, summed over an axis, or over none."""
    sizes = np.abs(attribution) if axis is None else np.abs(attribution).sum(axis, keepdims=True).reshape(1, -1)
    unit = ((sizes - sizes.min()) / (sizes.max() - sizes.min())).astype(np.float32)
    view = InputView("", InputKind.SIGNAL, values=values.astype(np.float32))
    maps = tuple(SaliencyMap(m, "", unit, attribution.astype(np.float32)) for m in METHODS)
    return result(replace(explanation(), inputs=(view,), maps=maps))


@pytest.mark.parametrize("length", [2, 30])
@pytest.mark.parametrize("last", [False, True])
def test_every_channel_of_a_signal_is_drawn(length: int, *, last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    signal = np.stack([np.arange(length), np.arange(length)[::-1] * 7 - 3])
    attribution = np.stack([np.linspace(1, 2, length), np.linspace(0, 3, length)])
    both = [array.T if last else array for array in (signal, attribution)]
    answer = of_signal(*both, axis=1 if last else 0)
    panel = grid_of(answer.report).rows[0].panels[0]
    assert isinstance(panel.chart, LineChart)
    names = ["channel 0", "channel 1", "map"]
    assert [line.name for line in panel.chart.series] == names
    for line, (start, end) in zip(panel.chart.series, ((0.0, 1.0), (1.0, 0.0), (0.0, 1.0)), strict=True):
        assert (line.y[0], line.y[-1]) == (start, end)
    assert panel.lines == ()
    assert [text for text in written(monkeypatch, answer) if text in names] == 2 * names


def test_channels_and_places_that_are_not_drawn_are_counted() -> None:
    signal = np.arange(7)[:, None] + np.arange(1500)[None] % 10
    attribution = np.ones((7, 1500)) * np.array([1, 7, 2, 6, 5, 4, 3])[:, None]
    attribution[1, 1001] = 50
    panel = grid_of(of_signal(signal, attribution, axis=0).report).rows[0].panels[0]
    assert isinstance(panel.chart, LineChart)
    assert [line.name for line in panel.chart.series[:-1]] == [f"channel {i}" for i in (1, 3, 4, 5, 6)]
    assert len({line.colour for line in panel.chart.series[:-1]} - {1}) == 5  # the second colour is the map's
    drawn = panel.chart.series[-1]
    assert (len(drawn.x), drawn.y[drawn.x.index(1001.0)]) == (500, 1.0)
    assert panel.lines == (
        "5 of 7 channels: the strongest of SmInt",
        "500 of 1,500 places: the strongest of each 3",
    )


def test_a_plane_of_time_and_features_is_a_picture_beside_its_input() -> None:
    plane = np.arange(1.0, 81.0).reshape(40, 2)
    row = grid_of(of_signal(plane, plane, axis=None).report).rows[0]
    (image,), (clipped, *_) = row.inputs.values(), row.panels[0].views
    for shown in (image, clipped.image):
        pixels = np.frombuffer(shown.pixels, np.uint8).reshape(40, 10)
        assert (pixels == np.round((plane - 1) / 79 * 255).repeat(5, axis=1)).all()


def test_each_picture_that_went_in_is_shown_and_lies_under_its_own_map() -> None:
    base = explanation()
    dark, light = (np.full((8, 8, 3), level, np.uint8) for level in (0, 255))
    inputs = tuple(InputView(name, InputKind.IMAGE, of) for name, of in (("a", dark), ("b", light)))
    maps = tuple(replace(m, input=name) for m in base.maps for name in "ab")
    answer = result(replace(base, inputs=inputs, maps=maps))
    grid = grid_of(answer.report)
    assert {name: set(image.pixels) for name, image in grid.rows[0].inputs.items()} == {"a": {0}, "b": {255}}
    html = answer.html()
    stored = dict(re.findall(r'<image id="([^"]+)" href="([^"]+)"', html))
    assert len(set(stored.values())) == 2
    under = re.findall(r'<use href="#([^"]+)">.*?<b>([^<]+)</b>', html, re.DOTALL)
    first, second = stored
    assert len(under) == 2 + 2 * (len(METHODS) + 1)
    assert {title[-1]: at for at, title in under} == {"a": first, "b": second}
    assert all(at == (first if title.endswith("a") else second) for at, title in under)
    drawn = sheet(grid, grid.rows).picture
    # Two inputs and four maps stand before the overlays, whose maps are black at the left.
    levels = [drawn.getpixel((2 * (150 + column * 142 + 2), 2 * (44 + 16 + 60))) for column in (6, 7)]
    assert [level[1] for level in levels if isinstance(level, tuple)] == [0, 140]


def test_a_picture_that_is_a_mean_of_planes_says_so() -> None:
    base = explanation()
    view = replace(base.inputs[0], picture=np.zeros((8, 8, 1), np.uint8), values=np.zeros((7, 8, 8), np.float32))
    row = grid_of(result(replace(base, inputs=(view,))).report).rows[0]
    assert row.lines[-1] == "input shown as the mean of its 7 planes"
    grey = replace(view, values=np.zeros((1, 8, 8), np.float32))
    assert "mean" not in " ".join(grid_of(result(replace(base, inputs=(grey,))).report).rows[0].lines)


def test_of_several_checkpoints_the_sentence_says_whose_predictions_are_counted() -> None:
    columns = (CheckpointColumn("a.pt"), CheckpointColumn("b.pt"))
    both = explanation(wrong=True), explanation(checkpoint=1)
    sentence = result(*both, checkpoints=columns).report.sentence
    assert sentence.startswith("0 of 1 predicted wrongly by b.pt, the last checkpoint. ")
    assert "(SmInt, median rank correlation of all checkpoints)" in sentence


def test_of_several_outputs_the_sentence_says_which_predicted_what() -> None:
    outputs = [replace(explanation(i, wrong=wrong), output=name) for i, wrong, name in OUTPUTS]
    sentence = result(*outputs, replace(explanation(1), output="box", correct=None)).report.sentence
    assert sentence.startswith("1 of 2 predicted wrongly (output cls), 0 of 1 (output aux). ")


OUTPUTS = ((1, True, "cls"), (2, False, "cls"), (1, False, "aux"))


def test_signals_get_curves() -> None:
    panel = grid_of(other_input(InputKind.SIGNAL, np.linspace(-1, 1, 50)).report).rows[0].panels[0]
    assert isinstance(panel.chart, LineChart)
    assert [line.name for line in panel.chart.series] == ["signal", "map"]
    assert panel.chart.series[0].y[0] == 0.0
    assert panel.chart.series[0].y[-1] == 1.0


def test_tokens_are_shaded_text() -> None:
    html = other_input(InputKind.TOKENS, np.array([0.0, 2.0]), ("<i>", "good")).html()
    assert '<span class="t0 special">&lt;i&gt;</span>' in html
    assert '<span class="t10">good</span>' in html


@pytest.mark.parametrize("kind", [InputKind.TABULAR, InputKind.SIGNAL, InputKind.TOKENS])
def test_every_kind_of_input_can_be_saved(tmp_path: Path, kind: InputKind) -> None:
    paths = other_input(kind, np.array([0.5, -2.0, 1.0]), ("a", "b", "c")).save(tmp_path, ["html", "png", "md"])
    assert [p.name for p in paths] == ["saliency.html", "saliency.md", "saliency.png"]


def test_16_samples_with_4_maps_of_224_pixels_are_under_4_mb() -> None:
    draw = np.random.default_rng(0)
    y, x = np.mgrid[:224, :224].astype(np.float32) / 224
    rows = []
    for i in range(16):
        blob = np.exp(-40 * ((x - draw.random()) ** 2 + (y - draw.random()) ** 2)).astype(np.float32)
        attribution = (draw.normal(size=(3, 224, 224)) * blob).astype(np.float32)
        size = np.abs(attribution).sum(0)
        values = np.clip(size / np.percentile(size, 99), 0, 1).astype(np.float32)
        waves = 127 + 100 * np.sin(20 * x + i)[:, :, None] * np.ones(3) + draw.normal(0, 8, (224, 224, 3))
        picture = np.clip(waves, 0, 255).astype(np.uint8)
        methods = ("gradient", "smoothgrad", "integrated", "smint")
        maps = tuple(SaliencyMap(m, "", values, attribution) for m in methods)
        trust = {m: Trust(0.1, 0.9, False) for m in methods}
        view = InputView("", InputKind.IMAGE, picture)
        rows.append(Explanation(**{**vars(explanation(i)), "inputs": (view,), "maps": maps, "trust": trust}))
    saliency = Saliency(tuple(rows), ("gradient", "smoothgrad", "integrated", "smint"), "smint")
    assert len(SaliencyResult(saliency).html().encode()) <= 4_000_000


@pytest.mark.parametrize(
    ("trust", "words"),
    [
        (Trust(0.01, 0.49, False), "mostly noise"),
        (Trust(0.01, 0.5, False), ""),
        (Trust(0.01, 0.51, False), ""),
        (Trust(None, None, True), "flat"),
        (Trust(0.99, 0.9, False), ""),
        (Trust(1.0, 0.9, False), "does not add up"),
        (Trust(0.2, 0.9, False, settled=False), "not settled"),
        (Trust(0.2, 0.9, False, settled=True), ""),
        (Trust(6.85, 0.2, False), "does not add up, mostly noise"),
        (Trust(0.01, 0.9, False, {"insertion": 0.4, "insertion_random": 0.5}), "insertion worse than random"),
        (Trust(0.01, 0.9, False, {"deletion": 0.3, "deletion_random": 0.2}), "deletion worse than random"),
        (Trust(0.01, 0.9, False, {"insertion": 0.4, "insertion_random": 0.5, "deletion": 0.3, "deletion_random": 0.2}),
         "worse than random"),
        (Trust(0.01, 0.9, False, {"insertion": 0.5, "insertion_random": 0.4, "deletion": 0.1}), ""),
        (Trust(0.01, 0.2, False, {"insertion": 0.1, "insertion_random": 0.4}),
         "mostly noise, insertion worse than random"),
    ],
)  # fmt: skip
def test_trust_figures_come_with_a_verdict(trust: Trust, words: str) -> None:
    settings = {"tolerance": 0.05} if trust.settled is not None else {}
    judged = replace(explanation(), trust={"gradient": Trust(None, None, False), "smint": trust})
    report = result(judged, settings=settings).report
    table = next(b for s in report.sections for b in s.blocks if isinstance(b, Table) and b.name == "trust")
    titles = [column.title for column in table.columns]
    assert ({"draws", "steps"} <= set(titles)) is bool(settings)
    assert ("doubt" in titles) is bool(words), "a column that says nothing has no place on 80 columns"
    assert not words or [row[titles.index("doubt")] for row in table.rows] == ["", words]
    assert all(len(row) == len(titles) for row in table.rows)
    narrow = as_text(report, 80).splitlines()
    if words:
        at = next(number for number, line in enumerate(narrow) if "smint" in line)
        told = " ".join(line[narrow[at - 3].index("doubt") :].strip() for line in narrow[at : at + 2])
        assert words in told, "on two lines at most"
    panel = next(p for p in grid_of(report).rows[0].panels if p.method == "smint")
    said = [part for line in panel.lines for part in line.split(": ")[-1:] if " " in part and "0." not in part]
    assert said == [part for part in words.split(", ") if part not in ("", "flat")]
    names = [name.replace("_", " ") for name in trust.quality]
    evaluated = [b for s in report.sections for b in s.blocks if isinstance(b, Table) and b.name == "evaluation"]
    assert [[c.title for c in t.columns] for t in evaluated] == ([["sample", "method", *names]] if names else [])
    assert not names or evaluated[0].rows[1][2:] == tuple(trust.quality.values())
    assert ("1 of 1 map of it is mostly noise" in report.sentence) is ("noise" in words)


def test_features_stand_in_one_order_for_every_method() -> None:
    strengths = {"gradient": [0.1, 3.0, -2.0, 0.2], "smint": [4.0, -1.0, 2.0, 3.0]}
    maps = tuple(
        SaliencyMap(method, "", np.abs(np.float32(values))[None], np.float32(values), False)
        for method, values in strengths.items()
    )
    rows = (InputView("", InputKind.TABULAR, None, np.zeros(4, np.float32)),)
    grid = grid_of(result(replace(explanation(), inputs=rows, maps=maps)).report)
    charts = [panel.chart for panel in grid.rows[0].panels if isinstance(panel.chart, BarChart)]
    assert [chart.names for chart in charts] == [("feature 0", "feature 3", "feature 2", "feature 1")] * 2
    assert charts[0].values == pytest.approx((0.1, 0.2, -2.0, 3.0))


def written_on(grid: MapGrid, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[float, ...]]]:
    """Each text that is drawn on a grid's sheet below its header, with its box in points as Pillow measures it."""
    found = []
    draw = ImageDraw.ImageDraw.text

    def noting(self: ImageDraw.ImageDraw, xy: tuple[float, float], text: str, **how: object) -> None:
        how.pop("fill")
        found.append((text, tuple(v / 2 for v in self.textbbox(xy, text, **how))))
        draw(self, xy, text, **how)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", noting)
    made = sheet(grid, grid.rows)
    monkeypatch.undo()
    title = max(box[3] for text, box in found if text == grid.title)
    first = next(n for n, (text, _) in enumerate(found) if text.startswith("#"))
    assert all(box[1] >= title - 1 and box[2] * 2 <= made.picture.width for _, box in found[1:first])
    assert " ".join(text for text, _ in found[1:first]) == grid.note
    assert all(box[1] >= 0 and box[3] * 2 <= made.picture.height for _, box in found)
    return found[first:]


@pytest.mark.parametrize("several", [False, True])
def test_a_sheet_shows_every_figure_whole_and_each_text_in_its_own_tile(
    several: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusts = [
        Trust(0.043, 0.75, False),
        Trust(4.1, 0.58, False),
        Trust(123456.0, 0.31, True, {"insertion": 0.1, "insertion_random": 0.2}),
    ]
    names = ["owl", "great white shark of the southern oceans", "W" * 30]
    checkpoints = tuple(
        CheckpointColumn(name, "", epoch=epoch) for name, epoch in (("a", 1), ("resnet_epoch=0012-loss=0.123456", 12))
    )
    made = []
    for number, (trust, name) in enumerate(zip(trusts, names, strict=True)):
        for checkpoint in range(1 + several):
            e = explanation(12345678901234567890 + number, checkpoint=checkpoint, wrong=True)
            top = ((name, 0.5), (name[:-1] + "X", 0.25), ("W" * 16, 0.125))
            known = {"prediction_name": name, "label_name": name[::-1], "top": top, "trust": {"smint": trust}}
            made.append(replace(e, **known))  # type: ignore[arg-type]
    saliency = Saliency(tuple(made), ("smint",), "smint", **({"checkpoints": checkpoints} if several else {}))
    block = SaliencyResult(saliency, run="runs/a").report.sections[0].blocks[0]
    grid = block.views["SmInt"][0] if isinstance(block, Views) else block
    assert isinstance(grid, MapGrid)
    found = written_on(grid, monkeypatch)

    columns = [(14, 136), *((150 + 142 * n, 282 + 142 * n) for n in range(3))]
    texts: dict[tuple[int, int], str] = {}
    starts = [box[1] for text, box in found if text.startswith("#")]
    assert len(starts) == 3
    for text, (left, top, right, bottom) in found:
        inside = [n for n, (low, high) in enumerate(columns) if low - 1 <= left and right <= high + 1]
        assert len(inside) == 1, (text, left, right)
        # What stands above the pictures of a row belongs to it.
        row = sum(start <= bottom + 12 + 16 * several for start in starts) - 1
        texts[row, inside[0]] = f"{texts.get((row, inside[0]), '')} {text}".strip()
        for other, box in found:
            apart = right <= box[0] or box[2] <= left or bottom <= box[1] or box[3] <= top
            assert apart or (other, box) == (text, (left, top, right, bottom)), (text, other)
    assert not any("…" in said for place, said in texts.items() if place[1])
    figures = [
        "delta 0.043 · agreement 0.75",
        "delta 4.1: does not add up agreement 0.58",
        "delta 123,456: does not add up agreement 0.31: mostly noise insertion worse than random",
    ]
    for row, (figure, name) in enumerate(zip(figures, names, strict=True)):
        left = texts[row, 0]
        assert f"#{12345678901234567890 + row}" in left.replace(" ", "")
        assert [part in left for part in ("(0.25)", "0.50", "0.25", "0.12")] == [True] * 4
        assert ("answer of" in left) is several
        if not several:
            assert texts[row, 2] == f"SmInt {figure}"
            continue
        assert "resnet_epoch=0012-loss=0.123456epoch12" in left.replace(" ", "")
        assert "a · epoch 1 answer" not in left
        said = [texts[row, column].removeprefix(title) for column, title in ((2, "a · epoch 1 "), (3, ""))]
        assert f"predicted {name}".replace(" ", "") in said[0].replace(" ", "")
        assert said[0].endswith(figure)
        assert said[1].endswith(said[0])
        # The last line of a title stands nearest to the picture, and is drawn first.
        assert said[1].startswith("epoch 12 ")
