"""Markdown, notebooks, pictures, and what a result does with them."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image as Pillow

from tests.report_answers import labels_result, samples_result
from xaicli.errors import UnwrittenError, XaiError
from xaicli.render.html import element
from xaicli.render.markdown import escaped, markdown
from xaicli.render.notebook import mimebundle
from xaicli.render.pictures import data_uri, png_bytes, png_of
from xaicli.render.terminal import as_text
from xaicli.report.charts import Image
from xaicli.report.model import Cell, Column, Report, Section, Table, Text
from xaicli.results import Result


def pixels_of(png: bytes) -> tuple[tuple[int, int], bytes]:
    picture = Pillow.open(io.BytesIO(png))
    return picture.size, picture.convert("RGB").tobytes()


def test_markdown_has_sentence_tables_and_how_it_was_made() -> None:
    text = markdown(labels_result(labels=1, epochs=2).report)
    assert text.startswith("# Labels: loss\n")
    assert "| label | n | mean | std | min | max | mean over epochs | epoch |" in text
    assert "|---|---:|---:|---:|---:|---:|---|---:|" in text
    assert "- command: `xai labels runs/exp1" in text


def test_markdown_escapes_what_would_be_markup() -> None:
    table = Table("t", "", (Column("a|b"), Column("n", Cell.NUMBER)), (("<b>|*x*\n[y](z)", None),))
    text = markdown(Report("x", "T", "r", "s", (Section("P", "p", (table,)),), ()))
    assert "| a\\|b | n |" in text
    assert "| \\<b\\>\\|\\*x\\* \\[y\\](z) | – |" in text
    assert escaped("`a` $b$") == "\\`a\\` \\$b\\$"


def test_the_histories_of_a_table_share_one_scale_wherever_they_are_drawn() -> None:
    rows = (("a", (0.0, 7.0)), ("b", (1.0, 2.0)), ("c", ()), ("d", (None, math.inf, 3.0)))
    table = Table("t", "", (Column("name"), Column("history", Cell.SPARKLINE)), rows)
    report = Report("x", "T", "r", "s", (Section("P", "p", (table,)),), ())
    assert re.findall(r"^\| [abcd] \| (.*) \|$", markdown(report), re.M) == ["▁█", "▂▃", "", "  ▄"]
    assert re.findall(r"^[abcd] *(.*?) *$", as_text(report), re.M) == ["▁█", "▂▃", "", "▄"]
    noted = mimebundle(report)["text/html"]
    assert re.findall(r"<td>[abcd]</td><td>(.*?)</td>", noted) == ["▁█", "▂▃", "", "  ▄"]
    page = Result(samples_result().answer, lambda: report).html()
    assert re.findall(r'<svg class="spark".*?<path d="(.*?)"/>', page) == [
        "M0.0 18.0L100.0 2.0",
        "M0.0 15.7L100.0 13.4",
        "M100.0 11.1h-4",
    ]


def test_a_notebook_gets_one_rich_display_and_text() -> None:
    bundle = labels_result(labels=2, epochs=2, names=("<script>x</script>", "y"))._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"}
    assert "<td>&lt;script&gt;x&lt;/script&gt;</td>" in bundle["text/html"]
    assert not {"<script", "style=", "<iframe"} & set(re.findall(r"<script|style=|<iframe", bundle["text/html"]))
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', bundle["text/html"])
    assert [Pillow.open(io.BytesIO(base64.b64decode(data))).format for data in pictures] == ["PNG"] * 3
    alts = re.findall(r'<img alt="([^"]*)"', bundle["text/html"])
    assert len(set(alts)) == 3, "the overview, and a picture a band"


def test_a_notebook_shows_every_table_of_a_result() -> None:
    tables = tuple(Table(f"t{i}", f"Table {i}", (Column("a"),), ((f"cell {i}",),)) for i in range(3))
    sections = tuple(Section(f"Part {i}", f"p{i}", (table,)) for i, table in enumerate(tables))
    result = labels_result(labels=1, epochs=1)
    result.__dict__["report"] = Report("x", "Title", "r", "Said.", sections, ())
    html = result._repr_mimebundle_()["text/html"]
    assert [f"cell {i}" in html and f"Part {i}" in html for i in range(3)] == [True] * 3


def test_sentences_are_whole_in_a_notebook_and_cells_are_not_endless() -> None:
    """What is cut out of the middle of a sentence makes another of it: one data set's figures read as another's."""
    said = " ".join(f"loss · eval · set {i}: The 5 lowest samples are at {i}.5 to {i}.75." for i in range(40))
    huge = "a" * 1_000_000
    table = Table("t", said.replace("loss", "table"), (Column("a"),), ((huge,),), said.replace("loss", "note"))
    section = Section("Part", "part", (Text(said.replace("loss", "text")), table))
    result = labels_result(labels=1, epochs=1)
    result.__dict__["report"] = Report("x", "Title", "r", said, (section,), (), (said.replace("loss", "warned"),))
    html = result._repr_mimebundle_()["text/html"]
    words = ("loss", "text", "table", "note", "warned")
    assert [html.count(said.replace("loss", word)) for word in words] == [1] * len(words)
    assert len(html) < 25_000


def test_what_is_for_the_page_is_whole_in_a_notebook_and_named_in_a_terminal() -> None:
    table, folded = (Table("t", title, (Column("a"),), (("cell",),), folded=title == "Rest") for title in ("T", "Rest"))
    sections = (
        Section("Long", "long", (table, folded), page_only=True),
        Section("Nothing", "nothing", (Text("None: nothing was recorded."),), page_only=True),
    )
    result = labels_result(labels=1, epochs=1)
    result.__dict__["report"] = Report("x", "Title", "r", "Said.", sections, ())
    shown = result._repr_mimebundle_()
    assert "<h4>Long</h4>" in shown["text/html"]
    assert "<td>cell</td>" in shown["text/html"]
    assert "None: nothing was recorded." in shown["text/html"]
    assert ".show() shows more: Rest" in shown["text/html"]
    assert "--format html shows more: Long\n" in shown["text/plain"]


def test_the_live_page_is_sandboxed(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    display = types.ModuleType("IPython.display")
    display.HTML = lambda text: shown.append(text) or text  # type: ignore[attr-defined]
    notebook = types.ModuleType("IPython")
    notebook.version_info = (9, 0)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    labels_result(labels=1, epochs=1).show()
    assert shown[0].startswith('<div><iframe srcdoc="&lt;!doctype html&gt;')
    assert 'sandbox="allow-scripts"' in shown[0]
    assert "allow-same-origin" not in shown[0]


def test_outside_a_notebook_show_prints(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert labels_result(labels=1, epochs=1).show() is None
    assert "Labels: loss" in capsys.readouterr().out


def test_a_figure_is_matplotlibs_and_needs_no_pyplot() -> None:
    figure = samples_result(epochs=2, top=1, listed=()).figure()
    assert isinstance(figure, Figure)
    code = (
        "import sys; from tests.report_answers import labels_result; labels_result(labels=1, epochs=1).figure(); "
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)


def test_a_kernel_without_pyplot_shows_a_figure() -> None:
    """By the method that IPython looks for where no formatter is registered for a type, as pyplot does."""
    script = (
        "import sys, io; from PIL import Image; from tests.report_answers import labels_result; "
        "figure = labels_result(labels=1, epochs=3).figure(); "
        "print(Image.open(io.BytesIO(figure._repr_png_())).size, 'matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "(1600, 816) False\n"


def test_an_empty_report_still_has_a_figure() -> None:
    result = labels_result(labels=1, epochs=1)
    result.__dict__["report"] = Report("x", "Title", "r", "Nothing.", (), ())
    assert len(result.figure().axes) == 0


def test_small_pictures_are_kept_exactly() -> None:
    image = Image(8, 8, 3, bytes(range(192)), "x")
    assert pixels_of(png_of(image)) == ((8, 8), bytes(range(192)))
    assert data_uri(image).startswith("data:image/png;base64,")


@pytest.mark.parametrize("kind", ["RGB", "RGBA"])
def test_a_large_picture_keeps_every_pixel(kind: str) -> None:
    pixels = bytes(i * i % 251 for i in range(7 * 5 * len(kind)))
    picture = Pillow.frombytes(kind, (7, 5), pixels)
    again = Pillow.open(io.BytesIO(png_bytes(picture)))
    again.verify()
    assert Pillow.open(io.BytesIO(png_bytes(picture))).tobytes() == pixels


def test_large_pictures_are_webp() -> None:
    image = Image(100, 80, 1, bytes(8000), "x")
    kind, data = data_uri(image).split(",")
    assert kind == "data:image/webp;base64"
    assert Pillow.open(io.BytesIO(base64.b64decode(data))).size == (100, 80)


def test_a_palette_colours_a_grey_picture() -> None:
    size, pixels = pixels_of(png_of(Image(2, 1, 1, bytes([0, 255]), "x", "inferno")))
    assert size == (2, 1)
    assert pixels == bytes([0, 0, 3, 252, 254, 164])


def test_save_writes_what_is_asked_for(tmp_path: Path) -> None:
    paths = labels_result(labels=2, epochs=2, bounds=("std",)).save(tmp_path / "new", ["html", "png", "md"])
    assert [p.name for p in paths] == [
        "labels.html",
        "labels.md",
        "labels-loss-eval.png",
        "labels-loss-eval-std.png",
    ]
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == sorted(p.name for p in paths)


def test_a_folder_that_cannot_be_written_is_an_error_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(XaiError, match="cannot be written") as error:
        labels_result(labels=1, epochs=1).save(tmp_path / "file", ["csv"])
    assert "-o DIR" in error.value.hint


def test_one_file_that_cannot_be_written_does_not_stop_the_others(tmp_path: Path) -> None:
    result = labels_result(labels=2, epochs=2, bounds=("std",))
    every = {path.name for path in result.save(tmp_path / "free")}
    for name in ("labels.html", "labels-loss-eval.png", "labels.csv", "labels.json"):
        folder = tmp_path / f"without-{name}"
        (folder / name).mkdir(parents=True)
        with pytest.raises(UnwrittenError) as error:
            result.save(folder)
        assert error.value.message == f"{folder / name} cannot be written: Is a directory"
        assert {path.name for path in error.value.written} == every - {name}
        assert {path.name for path in folder.iterdir() if path.is_file()} == every - {name}


def test_every_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    for name in ("labels.html", "labels.csv"):
        (tmp_path / name).mkdir()
    with pytest.raises(UnwrittenError) as error:
        labels_result(labels=1, epochs=1).save(tmp_path, ["html", "csv", "json"])
    assert error.value.message == (
        f"{tmp_path / 'labels.html'} cannot be written: Is a directory; "
        f"{tmp_path / 'labels.csv'} cannot be written: Is a directory"
    )
    assert json.loads((tmp_path / "labels.json").read_text())["outputs"] == [str(tmp_path / "labels.json")]


def test_the_report_is_built_once() -> None:
    calls = []
    result = labels_result(labels=1, epochs=1)
    build = result._build
    result._build = lambda: calls.append(1) or build()  # type: ignore[func-returns-value]
    assert result.report is result.report
    result.html()
    assert calls == [1]


def test_names_that_the_pictures_font_lacks_are_said_once(tmp_path: Path) -> None:
    result = labels_result(labels=2, epochs=2, names=("日本", "Ωμέγα ø"))
    with pytest.warns(UserWarning, match="boxes in place of 2 characters .*日本") as said:
        result.save(tmp_path, ["html", "png"])
    assert len(said) == 1
    assert "日本" in (tmp_path / "labels.html").read_text(encoding="utf-8")


def test_pictures_of_a_command_are_those_of_the_library(sample_run: Path, tmp_path: Path) -> None:
    """A command has matplotlib imported without its artists' signatures; a session keeps them."""
    said = "import inspect, matplotlib.lines; print('linewidth' in str(inspect.signature(matplotlib.lines.Line2D.set)))"
    command = f"from xaicli.cli import main; main(['labels', {str(sample_run)!r}, '-q', '-o', {str(tmp_path / 'a')!r}])"
    library = f"import xaicli; xaicli.open_run({str(sample_run)!r}).labels().save({str(tmp_path / 'b')!r})"
    for code, documented in ((command, "False"), (library, "True")):
        done = subprocess.run([sys.executable, "-c", f"{code}\n{said}"], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == documented
    pictures = sorted(path.name for path in (tmp_path / "a").glob("*.png"))
    assert pictures
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in pictures)


def test_a_percentage_stays_on_one_line_of_a_page() -> None:
    assert str(element("p", "7.0 % of 400, 95 % interval")) == "<p>7.0\xa0% of 400, 95\xa0% interval</p>"
    assert str(element("td", "7.0 %")) == "<td>7.0 %</td>"
