"""Reports in a terminal of 80 columns."""

from __future__ import annotations

import io
import itertools
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from tests.report_answers import labels_result, samples_result
from xaicli.answer import Counts
from xaicli.render.blocks import spark
from xaicli.render.terminal import as_text, show
from xaicli.render.text import averaged, clipped, printable, sparkline, told_apart
from xaicli.report.charts import MatrixChart
from xaicli.report.model import Cell, Column, Report, Section, Table, Text


def report_of(*blocks: object) -> Report:
    return Report("x", "Title", "run x", "A sentence.", (Section("Part", "part", blocks),), ())  # type: ignore[arg-type]


def stripped(report: Report) -> str:
    """The text without blanks at the ends of lines, which an editor would remove here."""
    return "\n".join(line.rstrip() for line in as_text(report).split("\n"))


def test_no_color_means_plain_text_even_where_colour_is_forced(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    show(report_of(Text("words")))
    assert "\x1b[" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    show(report_of(Text("words")))
    assert "\x1b" not in capsys.readouterr().out


def test_labels_at_80_columns() -> None:
    assert stripped(labels_result(labels=3, epochs=6).report) == GOLDEN_LABELS


GOLDEN_LABELS = """\
Labels: loss
run runs/exp1 · mode eval · metric loss · recorded 2026-11-20 17:02
Highest mean at the last epoch: airplane (2.09 ± 0.091). Lowest: bird (1.58 ±
0.18).

loss · eval
Each label at its last epoch: loss · eval
label        n    mean       std     min     max   mean over epochs   epoch
───────────────────────────────────────────────────────────────────────────
airplane   300   2.088   0.09054   1.907    2.36   █▇▆▅▄▃                 6
car        301   1.577    0.2011   1.174    2.18   ▄▄▃▂▂▁                 6
bird       302   1.576    0.1799   1.216   2.116   ▅▄▃▂▂▁                 6
"""


def test_samples_at_80_columns() -> None:
    assert stripped(samples_result(epochs=4, top=2, listed=(17,)).report) == GOLDEN_SAMPLES


GOLDEN_SAMPLES = """\
Sample histories: loss
run runs/exp1 · mode eval · metric loss · recorded 2026-11-20 17:02
The median loss falls from 0.882 to 0.607. The 2 highest samples are at 3.48 to
4.15; all are predicted wrongly. The 2 lowest samples are at 0.272 to 0.458;
none is predicted wrongly.

loss · eval
Values of loss · eval
group      sample   label      prediction    score   history
────────────────────────────────────────────────────────────
max 1      100      airplane   car           4.155   ▇██▇
max 2      101      car        bird          3.478   ▆▆▆▆
min 1      200      airplane   airplane     0.2725   ▁▁▂▁
min 2      201      car        car          0.4576   ▂▁▁▂
listed 1   17       airplane   airplane     0.2186   ▂▂▂▁
"""


def test_no_line_is_wider_than_the_terminal() -> None:
    wide = "word " * 40
    table = Table("t", "", (Column("a"), Column("b", Cell.NUMBER), Column("c")), ((wide, 1.0, wide),))
    assert max(map(len, as_text(report_of(table)).splitlines())) <= 80


def test_markup_control_characters_and_bidi_are_text() -> None:
    hostile = "[red]x[/red] \x1b[31m \u202e \x07"
    text = as_text(report_of(Table("t", "", (Column("a"),), ((hostile,),)), Text(hostile)))
    assert "[red]x[/red]" in text
    assert not {"\x1b", "\u202e", "\x07"} & set(text)


def test_warnings_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    samples_result(epochs=2, top=1, listed=()).show_terminal()
    out, err = capsys.readouterr()
    assert "mind the gap" in err
    assert "mind the gap" not in out


def test_what_was_left_out_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    samples_result(epochs=2, top=1, listed=()).show_terminal()
    assert capsys.readouterr().out.endswith(
        "\n\n3 duplicate rows · 2 samples without a finite value in the last epoch\n"
    )
    counts = Counts(non_finite=1, dropped=0, damaged=("data/x.parquet",))
    stream = io.StringIO()
    show(report_of(), counts=counts, out=Console(file=stream, width=80))
    assert stream.getvalue().endswith("1 non-finite value left out · 1 damaged file left out: data/x.parquet\n")


def test_written_paths_come_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = labels_result(labels=1, epochs=2)
    result.show_terminal(result.save(tmp_path, ["csv"]))
    assert capsys.readouterr().out.rstrip().endswith(f"wrote {tmp_path / 'labels.csv'}")


def test_many_pictures_are_one_line() -> None:
    stream = io.StringIO()
    paths = [Path("out/page.html"), *(Path(f"out/p-{i:02d}.png") for i in range(16))]
    show(report_of(), paths, out=Console(file=stream, width=80))
    assert stream.getvalue().endswith("wrote out/page.html\nwrote 16 pictures beside, p-00.png the first\n")


@pytest.mark.parametrize(("variable", "colour"), [("FORCE_COLOR", True), ("NO_COLOR", False)])
def test_colour_is_the_users_choice(monkeypatch: pytest.MonkeyPatch, variable: str, colour: bool) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "1")
    stream = io.StringIO()
    show(labels_result(labels=1, epochs=2).report, out=Console(file=stream, width=80, force_terminal=None))
    assert ("\x1b[" in stream.getvalue()) is colour


def test_a_long_table_says_how_many_rows_are_missing() -> None:
    table = Table("t", "", (Column("n", Cell.INTEGER),), tuple((i,) for i in range(25)), terminal_rows=20)
    assert "and 5 more rows: --json has all" in as_text(report_of(table))


def test_an_empty_report_has_a_title_and_a_sentence() -> None:
    assert as_text(Report("x", "Title", "run x", "Nothing.", (), ())) == "Title\nrun x\nNothing.\n"


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([], ""),
        ([None, None], "  "),
        ([1.0], "▄"),
        ([2.0, 2.0], "▄▄"),
        ([0.0, None, 7.0], "▁ █"),
        ([0.0, float("nan"), float("inf"), 7.0], "▁  █"),
        (list(range(8)), "▁▂▃▄▅▆▇█"),
    ],
)
def test_sparkline(values: list[float | None], line: str) -> None:
    assert sparkline(values) == line


def test_a_long_sparkline_is_averaged_into_its_width() -> None:
    assert sparkline([0.0] * 50 + [1.0] * 50, 10) == "▁▁▁▁▁█████"


def test_columns_that_do_not_fit_are_counted_not_squeezed() -> None:
    columns = (Column("sample"), *(Column(f"n{number}", Cell.NUMBER) for number in range(12)))
    text = as_text(report_of(Table("wide", "", columns, (("7", *[0.123456] * 12),))), width=80)
    # 6 + 9 * (6 + 2) = 78 columns; a tenth number would pass 80
    assert "n8" in text
    assert "n9" not in text[: text.index("and 3 more")]
    assert "and 3 more columns (n9, n10 and n11)" in text
    assert max(map(len, text.splitlines())) <= 80


def test_what_a_page_folds_a_terminal_only_names() -> None:
    columns = (Column("what"), Column("value"))
    shown = Table("code", "Code", columns, (("branch", "main"),))
    folded = Table("packages", "Packages", columns, (("numpy", "2.4.6"),), folded=True)
    text = as_text(report_of(shown, folded))
    assert "branch" in text
    assert "numpy" not in text
    assert "--format html shows more: Packages" in text


def test_a_long_name_keeps_both_ends() -> None:
    assert printable("images/train/cat_0042.png", limit=16) == "images/t…042.png"
    assert printable("short", limit=16) == "short"


def test_sparklines_are_thinned_to_what_can_be_seen() -> None:
    assert averaged([1.0, 3.0, None, None, 5.0, 7.0], 3) == [2.0, None, 6.0]
    assert averaged([1.0, 2.0], 3) == [1.0, 2.0]


def test_one_missing_epoch_of_two_hundred_is_a_gap_in_the_smallest_chart() -> None:
    values: list[float | None] = [float(epoch) for epoch in range(200)]
    assert " " not in sparkline(values, 16)
    assert spark(values).count("M") == 1
    values[90] = None
    line = sparkline(values, 16)
    assert [place for place, bar in enumerate(line) if bar == " "] == [90 * 16 // 200]
    drawn = spark(values)
    assert drawn.count("M") == 2
    # Groups of five: the eighteenth of forty is missing.
    assert [f"{place:.1f}" for place in (17 / 39 * 100, 18 / 39 * 100, 19 / 39 * 100)][1] not in drawn
    # A sample that is there in every third epoch is no line of gaps: its means say how it fared.
    assert averaged([6.0, None, None] * 4, 4) == [6.0] * 4


def test_a_history_stays_on_one_line_beside_long_names() -> None:
    names = tuple(f"a very long class name with many words in it, number {i}" for i in range(3))
    lines = stripped(labels_result(labels=3, epochs=30, names=names).report).splitlines()
    bars = [set(line) & set("▁▂▃▄▅▆▇█") for line in lines]
    assert sum(map(bool, bars)) == 3
    assert all(len(re.findall("[▁▂▃▄▅▆▇█]{16}", line)) == 1 for line, found in zip(lines, bars, strict=True) if found)


def test_names_are_told_apart_by_what_differs() -> None:
    names = [f"#s3://bucket/images/n0144_{i:05d}.JPEG" for i in (5, 19)]
    assert told_apart([*names, "median"], 10) == {names[0]: "…44_00005…", names[1]: "…44_00019…", "median": "median"}
    assert told_apart(["a" * 30 + "x", "b" * 30 + "y"], 11) == {
        "a" * 30 + "x": "aaaaa…aaaax",
        "b" * 30 + "y": "bbbbb…bbbby",
    }


def test_a_name_cut_at_its_end_says_so() -> None:
    names = [f"/data/train/image_0{i}_original_resolution.JPEG" for i in (1, 2)]
    assert list(told_apart(names, 24).values()) == ["/data/train/image_01…", "/data/train/image_02…"]


def test_long_ids_stay_on_one_line_and_apart() -> None:
    ids = [f"/datasets/pictures/train/cat/image_{i:05d}_original_resolution.JPEG" for i in range(3)]
    columns = (Column("sample"), Column("label"), Column("loss", Cell.NUMBER), Column("course", Cell.SPARKLINE))
    rows = tuple((name, "automobile", 1.25 + i, (1.0, 2.0, 3.0) * 4) for i, name in enumerate(ids))
    report = Report("r", "R", "", "", (Section("S", "s", (Table("t", "T", columns, rows),)),), ())
    lines = [line for line in as_text(report, 80).splitlines() if "automobile" in line]
    assert [f"mage_{i:05d}_" in line for i, line in enumerate(lines)] == [True] * 3


def test_rows_take_one_line_where_all_but_the_last_text_fit() -> None:
    columns = (Column("sample"), Column("label → predicted"), Column("delta", Cell.NUMBER), Column("doubt"))
    rows = (("1160", "five → three", 0.25, ""), ("140", "three → zero", 0.5, "mostly noise"))
    report = Report("r", "R", "", "", (Section("S", "s", (Table("t", "T", columns, rows),)),), ())
    lines = as_text(report, width=43).splitlines()
    assert "1160     five → three         0.25" in "\n".join(lines)
    (wrapped,) = [number for number, line in enumerate(lines) if line.startswith("140")]
    assert lines[wrapped].split() == ["140", "three", "→", "zero", "0.5", "mostly"]
    assert lines[wrapped + 1].split() == ["noise"]


def words_of(text: str) -> list[str]:
    return re.findall(r"[^\s│─]+", text)


def test_no_word_of_a_table_is_broken() -> None:
    columns = (Column("run"), Column("recorded"), Column("modes"), *(Column(f"n{i}", Cell.INTEGER) for i in range(3)))
    rows = (("runs/lightning", "2026-11-26 19:00", "train, eval", 12, 21_564, 3),)
    table = Table(
        "t", "T", (*columns, Column("state"), Column("took")), (*((*row, "finished", "13 s") for row in rows),)
    )
    found = words_of(as_text(report_of(table), 72))
    assert {"runs/lightning", "2026-11-26", "19:00", "train,", "21,564", "finished", "13"} <= set(found)


@pytest.mark.parametrize("length", range(22, 42))
@pytest.mark.parametrize("width", [60, 80])
def test_no_id_is_broken_before_its_end(length: int, width: int) -> None:
    ids = [f"img_{i}_".ljust(length - 4, "x") + ".png" for i in range(3)]
    names = ("sample", "label", "prediction")
    columns = (*map(Column, names), Column("score", Cell.NUMBER), Column("history", Cell.SPARKLINE))
    rows = tuple((name, "a long name", "automobile", 0.9642, (1.0, 2.0, 3.0, 4.0)) for name in ids)
    found = [word for word in words_of(as_text(report_of(Table("t", "T", columns, rows)), width)) if "x" in word]
    shown = [word for word in found if re.match(r"img_[0-2]", word)]
    assert len(shown) == 3
    assert all(word in ids or ("…" in word and word.endswith(".png")) for word in shown)


@pytest.mark.parametrize("width", [60, 80])
def test_a_rule_is_cut_nowhere_and_takes_what_the_other_columns_leave(width: int) -> None:
    rule = "loss p95 <= 2 where label < 5 AND loss > 0.001"
    columns = (Column("outcome"), Column("rule", whole=True), Column("value", Cell.NUMBER), Column("of"))
    columns = (*columns, Column("why", whole=True))
    rows = (("failed", rule, 2.504, "train epoch 12", ""), ("passed", rule, 1.504, "train epoch 12", "of a part " * 9))
    lines = as_text(report_of(Table("t", "T", columns, rows)), width).splitlines()
    first, second = (number for number, line in enumerate(lines) if line.startswith(("failed", "passed")))
    start, end = lines[first].index("loss"), lines[first].index("2.504")
    assert " ".join(" ".join(line[start:end] for line in lines[first:second]).split()) == rule
    assert lines[first].rstrip().endswith("train epoch 12")
    assert all(line.strip() for line in lines[first:second])


def test_a_sentence_without_room_beside_its_row_stands_under_it_whole() -> None:
    """Long labels, and a reason that repeats one: no name is broken within more lines than it needs."""
    names = [f"Lens-mounted electro-optical device of family {n}, revision {n}" for n in range(4)]
    said = [f"never learned; 23 times predicted {name}; the highest mean loss of 400 samples" for name in names]
    columns = (Column("sample"), Column("label"), Column("suggested"), Column("score", Cell.NUMBER), Column("reason"))
    rows = tuple((str(i), names[i - 1], names[i], 0.5 + i / 8, said[i]) for i in range(4))
    lines = as_text(report_of(Table("t", "T", columns, rows)), 80).splitlines()
    assert max(map(len, lines)) <= 80
    first = [number for number, line in enumerate(lines) if re.match(r"[0-3]  ", line)]
    assert len(first) == 4
    assert {after - before for before, after in itertools.pairwise(first)} == {3}
    for number, reason in zip(first, said, strict=True):
        assert " ".join(" ".join(lines[number + 1 : number + 3]).split()) == reason
    assert "column" not in "\n".join(lines)


@pytest.mark.parametrize("width", [60, 80])
def test_a_cut_label_is_told_from_those_that_are_in_no_row(width: int) -> None:
    labels = ("picture of a frog", "picture of a cat (four legs, domestic)", "picture of a dog (four legs, domestic)")
    columns = (*map(Column, ("group", "sample", "label", "prediction")), Column("score", Cell.NUMBER))
    rows = (("min 2", "gs://bucket/of/the/team/train/image_0003616.png", labels[1], labels[0], 0.5),)
    columns, rows = (*columns, Column("history", Cell.SPARKLINE)), ((*rows[0], (1.0, 2.0) * 8),)
    text = as_text(replace(report_of(Table("t", "T", columns, rows)), label_names=labels), width)
    assert "cat" in text
    assert "…" in text


def test_names_at_the_head_of_columns_are_cut_as_those_in_cells() -> None:
    runs = [f"warmup-cosine-long-name-of-the-sweep-seed-{n}" for n in range(3)]
    columns = (*map(Column, ("mode", "metric")), *(Column(run, Cell.NUMBER) for run in runs))
    columns, rows = (*columns, Column("better"), Column("n")), (("eval", "correct", 0.57, 0.6833, 0.73, runs[2], "9"),)
    lines = as_text(report_of(Table("t", "T", columns, rows)), 80).splitlines()
    (head,) = (line.split() for line in lines if line.startswith("mode"))
    assert [name[-2:] for name in head] == ["de", "ic", "-0", "-1", "-2", "er", "n"]
    (row,) = (line.split() for line in lines if line.startswith("eval"))
    assert row == ["eval", "correct", "0.57", "0.6833", "0.73", head[4], "9"]


def test_of_a_run_with_its_mean_only_the_run_is_cut() -> None:
    runs = [f"warmup-cosine-long-name-of-the-sweep-seed-{n}" for n in range(3)]
    columns = (*map(Column, ("where", "mean of", "first", "last")), Column("difference", Cell.NUMBER), Column("better"))
    rows = tuple(("eval", "accuracy", f"{runs[0]} 0.57", f"{run} 0.6833", 0.1133, run) for run in runs[1:])
    found = words_of(as_text(report_of(Table("t", "T", columns, rows)), 80))
    assert found.count("0.57") == found.count("0.6833") == 2
    assert {word[-1] for word in found if word.startswith("warmup")} == set("012")


def test_a_short_sentence_stays_beside_its_row() -> None:
    columns = (Column("sample"), Column("reason"))
    text = as_text(report_of(Table("t", "T", columns, (("7", "never learned " * 6),))), 60)
    (row,) = [line for line in text.splitlines() if line.startswith("7")]
    assert "never learned" in row


def test_long_ids_are_cut_once_and_leave_room_for_verdicts() -> None:
    ids = [f"s3://bucket-of-the-team/datasets/train/images/img_{i:07d}.JPEG" for i in range(3)]
    columns = (Column("sample"), Column("label → predicted"), Column("method"), *(Column(n, Cell.NUMBER) for n in "ab"))
    rows = tuple((name, "automobile → truck", "smoothgrad", 0.06741, 0.8959, "worse than random") for name in ids)
    text = as_text(report_of(Table("t", "T", (*columns, Column("doubt")), rows)), 80)
    found = words_of(text)
    assert found.count("smoothgrad") == found.count("automobile") == 3
    assert [sum(word.endswith(f"{i}.JPEG") for word in found) for i in range(3)] == [1, 1, 1]
    assert "random" in found
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(("width", "shown"), [(40, 5), (50, 5), (60, 6), (20, 3)])
def test_a_narrow_terminal_drops_the_score_last_and_names_what_it_drops(width: int, shown: int) -> None:
    columns = (
        *map(Column, ("group", "sample", "label", "prediction")),
        Column("score", Cell.NUMBER, kept=True),
        Column("history", Cell.SPARKLINE),
    )
    rows = tuple((f"max {i}", f"{1160 + i}", "one", "three", 9.09 + i, tuple(range(12))) for i in (1, 2))
    text = as_text(report_of(Table("t", "T", columns, rows)), width)
    (head,) = (line.split() for line in text.splitlines() if line.startswith("group"))
    assert "score" in head
    assert len(head) == shown
    hidden = [column.title for column in columns if column.title not in head]
    said = re.search(r"more columns? \(([^)]+)\): a wider terminal", " ".join(text.split()))
    assert (said[1] if said else "") == " and ".join(", ".join(hidden).rsplit(", ", 1))
    assert max(map(len, text.splitlines())) <= width


def test_one_column_or_row_more_is_one() -> None:
    columns = tuple(Column(f"columns{i:03}", Cell.NUMBER) for i in range(7))
    text = as_text(report_of(Table("t", "T", columns, ((0.123456,) * 7,) * 2, terminal_rows=1)), 80)
    text = " ".join(text.split())
    assert text.endswith(
        "1 more row: --json has all, and 1 more column (columns006): a wider terminal or --json has all"
    )


def test_text_is_text_in_a_notebook_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class ZMQInteractiveShell:
        """What rich takes for a notebook, in which it displays each line by itself."""

    monkeypatch.setattr("builtins.get_ipython", ZMQInteractiveShell, raising=False)
    monkeypatch.setattr("rich.jupyter.display", lambda *_: pytest.fail("rich displayed a line of its own"))
    assert Console(file=io.StringIO()).is_jupyter
    result = labels_result(labels=1, epochs=2)
    assert repr(result).startswith("Labels: loss\n")
    assert result._repr_mimebundle_()["text/plain"].startswith("Labels: loss\n")
    result.show_terminal()
    assert capsys.readouterr().out.startswith("Labels: loss\n")


def test_headings_of_a_matrix_are_told_apart() -> None:
    names = ("domestic long-haired cat", "domestic long-haired dog")
    chart = MatrixChart("m", "M", names, ((8, 2), (1, 5)), "taken for", "label")
    heading = next(line for line in as_text(report_of(chart)).splitlines() if line.lstrip().startswith("label"))
    cat, dog = re.split(r"\s{2,}", heading.strip().removeprefix("label").strip())
    assert "cat" in cat
    assert "dog" in dog
    assert max(len(cat), len(dog)) <= 12


@pytest.mark.parametrize("name", ["数据集/画像/猫_0001_非常に長い名前のファイル{}.png", "x" * 40 + "😀" * 9 + "{}"])
def test_a_wide_name_is_cut_to_the_columns_it_takes(name: str) -> None:
    """As many columns of the table are there, with as wide a name of whatever letters."""
    columns = (Column("group"), Column("sample"), Column("label"))
    columns += (Column("score", Cell.NUMBER), Column("history", Cell.SPARKLINE))
    rows = tuple(("max 1", name.format(i), "a label", 1234.5 + i, (1.0, 2.0, 3.0)) for i in range(3))
    section = Section("s", "s", (Table("t", "Values", columns, rows),))
    shown = as_text(Report("r", "R", "run", "Said.", (section,), ()))
    assert "more column" not in shown
    assert all(text in shown for text in ("1,234", "▁▅█", "a label"))
    assert max(map(cell_len, shown.splitlines())) <= 80
    assert len({line.split()[2] for line in shown.splitlines() if line.startswith("max 1")}) == 3


def test_huge_texts_are_told_by_their_ends_before_anything_walks_through_them() -> None:
    """Two that differ in the middle alone stay two, and nothing counts the columns of ten megabytes."""
    one, other = "a" * 5_000_000 + "x" + "b" * 5_000_000, "a" * 5_000_000 + "y" + "b" * 5_000_000
    short = clipped([one, other, "z"])
    assert short["z"] == "z"
    assert all(len(text) <= 4_010 and text.startswith("aaa") for text in (short[one], short[other]))
    told = told_apart([one, other, "z"], 20)
    assert len(set(told.values())) == 3
    assert told["z"] == "z"
    assert printable(one, limit=9) == "aaaa…bbbb"
    table = Table("t", "", (Column("id"), Column("text"), Column("n", Cell.INTEGER)), ((1, one, 3), (2, other, 4)))
    shown = as_text(report_of(table))
    lines = [line.split() for line in shown.splitlines() if line.strip().startswith(("1", "2"))]
    assert [line[-1] for line in lines] == ["3", "4"]
    assert lines[0][1] != lines[1][1]


def test_long_names_are_cut_before_columns_go() -> None:
    """The parts of a data set's, a sample's and two labels' names that tell them apart, all in 80 columns."""
    sides = ("left", "right")
    labels = [f"{sign}-with-effusion-{side}" for sign in ("cardiomegaly", "pneumothorax") for side in sides]
    columns = (*map(Column, ("mode", "data set", "sample", "label", "suggested")), Column("reason"))
    rows = tuple(
        (
            "train",
            f"hospital-{2023 + i % 2}-multicentre",
            f"patient-{i:05d}/frontal-view-{i:03d}.dcm",
            labels[i],
            labels[i - 1],
            f"never learned; always predicted {labels[i - 1]}; 4th highest mean loss of 600 samples",
        )
        for i in range(4)
    )
    text = as_text(report_of(Table("t", "T", columns, rows)), 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "more column" not in text
    shown = [line.split() for line in text.splitlines() if line.startswith("train")]
    assert [len(row) for row in shown] == [5] * 4
    assert len({row[1] for row in shown}) == 2
    for place in (2, 3, 4):
        assert len({row[place] for row in shown}) == 4
