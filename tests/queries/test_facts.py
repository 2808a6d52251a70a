"""What samples are, beside the samples and as columns of every question, against plain Python."""

import csv
import datetime
import io
import json
import math
import re
import unicodedata
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image
from polars.testing import assert_frame_equal

import xaicli
from xaicli.cli import main
from xaicli.errors import UsageError, XaiError
from xaicli.report.facts import address_of, local_path
from xaicli.report.model import Gallery
from xaicli.results import Result

N = 60
CAMERAS = ["front", "rear", "<script>window.hit=1</script>"]
LOSS = np.arange(N, dtype=np.float32)[::-1] / 8


@pytest.fixture
def recorded(tmp_path):
    """Two epochs of 60 samples, whose facts are a picture's path, a camera, a number, a date and a text."""
    path = tmp_path / "run"
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(N):
        Image.fromarray(np.full((8, 8, 3), i * 4, np.uint8)).save(pictures / f"{i}.png")
    with xaicli.Run(path) as run:
        run.log_facts(
            np.arange(N),
            picture=[str(pictures / f"{i}.png") for i in range(N)],
            camera=[CAMERAS[i % 3] for i in range(N)],
            bright=np.arange(N) / 100,
            taken=[datetime.date(2026, 1, 1 + i % 28) for i in range(N)],
            text=["javascript:window.hit=1" if i % 2 else "\x1b[31mred\x1b[0m \u202e" for i in range(N)],
        )
        for epoch in (1, 2):
            run.log_samples(sample_id=np.arange(N), label=np.arange(N) % 2, loss=LOSS / epoch, mode="eval", epoch=epoch)
    return path


def asked(capsys, *arguments):
    assert main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_rows_say_what_their_samples_are(recorded, capsys):
    for command in (["samples", "--max", "2", "--ids", "7"], ["dynamics"], ["findings"]):
        found = asked(capsys, command[0], recorded, *command[1:])
        for row in found["rows"]:
            if (i := row.get("sample_id")) is None:
                continue
            assert row["facts"]["camera"] == CAMERAS[i % 3]
            assert row["facts"]["bright"] == i / 100
            assert row["facts"]["taken"] == f"2026-01-{1 + i % 28:02}"
            assert row["facts"]["text"] == ("javascript:window.hit=1" if i % 2 else "\x1b[31mred\x1b[0m \u202e")
    report = xaicli.open_run(recorded).report(max=1, min=0)
    assert json.loads(report.to_json())["rows"][0]["facts"]["camera"] == "front"


def test_without_facts_nothing_tells_of_them(recorded, capsys):
    found = asked(capsys, "samples", recorded, "--no-facts")
    assert all("facts" not in row for row in found["rows"])
    page = xaicli.open_run(recorded).samples(no_facts=True).html()
    assert "camera" not in page
    assert "rear" not in page
    target = recorded.parent / "rows.csv"
    assert main(["export", str(recorded), "-o", str(target), "--no-facts"]) == 0
    assert "camera" not in target.read_text()
    with pytest.raises(UsageError, match="exclude"):
        xaicli.open_run(recorded).samples(no_facts=True, facts="x.csv")


def test_a_fact_groups_samples(recorded, capsys):
    rows = asked(capsys, "labels", recorded, "--label-key", "camera", "--epoch", 2)["rows"]
    assert {row["label"]: (row["n"], row["mean"]) for row in rows} == {
        camera: (N / 3, pytest.approx(float((LOSS[k::3] / 2).mean()))) for k, camera in enumerate(CAMERAS)
    }
    run = xaicli.open_run(recorded)
    by_engine = run.labels(label_key="camera", engine="duckdb").data
    assert by_engine.drop("bounds").equals(run.labels(label_key="camera").data.drop("bounds"), null_equal=True)


def test_a_condition_names_facts(recorded, capsys):
    where = "camera = 'rear' AND bright > 0.3 AND taken >= DATE '2026-01-05'"
    wanted = [i for i in range(N) if i % 3 == 1 and i > 30 and i % 28 >= 4]
    rows = asked(capsys, "samples", recorded, "--where", where, "--max", N, "--min", 0)["rows"]
    assert sorted(row["sample_id"] for row in rows) == wanted
    run = xaicli.open_run(recorded)
    assert sorted(run.dynamics(where=where).data["sample_id"]) == wanted
    assert sorted(run.scan(where=where).collect()["sample_id"].unique()) == wanted
    target = recorded.parent / "rows.parquet"
    assert main(["export", str(recorded), "-o", str(target), "--where", where]) == 0
    rows = pl.read_parquet(target)
    assert sorted(rows["sample_id"].unique()) == wanted
    assert set(rows["camera"]) == {"rear"}


def test_exports_have_a_column_a_fact(recorded, tmp_path):
    for shape in ("long", "wide"):
        target = tmp_path / f"{shape}.csv"
        assert main(["export", str(recorded), "-o", str(target), "--shape", shape]) == 0
        for row in csv.DictReader(io.StringIO(target.read_text())):
            assert (row["camera"], float(row["bright"])) == (
                CAMERAS[int(row["sample_id"]) % 3],
                int(row["sample_id"]) / 100,
            )
    folder = tmp_path / "out"
    assert main(["samples", str(recorded), "-o", str(folder), "--format", "csv", "-q"]) == 0
    row = next(csv.DictReader(io.StringIO((folder / "samples.csv").read_text())))
    assert row["camera"] == CAMERAS[int(row["sample_id"]) % 3]


def test_pages_show_them_safely(recorded):
    page = xaicli.open_run(recorded).samples(max=4, min=0).html()
    path = (recorded.parent / "pictures" / "0.png").as_uri()
    assert f'href="{path}"' in page
    assert "<script>window" not in page
    assert "&lt;script&gt;window.hit=1" in page
    assert 'href="javascript' not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert page.count("<img") >= 4  # the pictures their paths name
    hidden = xaicli.open_run(recorded).samples(max=4, min=0).html(no_images=True)
    assert "<img" not in hidden


def test_a_terminal_is_not_coloured_by_them(recorded, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    assert main(["samples", str(recorded), "--max", "2", "--min", "0"]) == 0
    out = capsys.readouterr().out
    assert "camera" in out
    assert "\x1b[31m" not in out
    assert "\u202e" not in out


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("https://example.org/a b.png?x=1", "https://example.org/a%20b.png?x=1"),
        ("javascript:alert(1)", ""),
        ("javascript://example.org/%0aalert(1)", ""),
        ("data:text/html,<script>1</script>", ""),
        ("vbscript://x/y.png", ""),
        ("http://[", ""),
        ('https://example.org/"onmouseover="x', "https://example.org/%22onmouseover=%22x"),
        ("//host/share/a.png", ""),
        ("a sentence / with a slash.", ""),
        ("and/or", ""),
        ("front", ""),
        ("/data/7.png", "file:///data/7.png"),
        ("/data/a b.png", "file:///data/a%20b.png"),
        ("C:\\data\\7.png", "file:///C:/data/7.png"),
        ("images/7.png", "file:///somewhere/run/images/7.png"),
        ("/data/x\n.png", ""),
        ("/" + "x" * 2000 + ".png", ""),
        (7, ""),
        (None, ""),
    ],
)
def test_which_texts_lead_somewhere(value, address):
    assert address_of(value, "/somewhere/run") == address


def test_a_path_is_looked_for_here_first(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "7.png").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert local_path("images/7.png", "/somewhere/run") == tmp_path / "images" / "7.png"


@pytest.mark.parametrize("written", ["file://{0}", "file://localhost{0}", "FILE://{0}"])
def test_a_picture_at_an_address_of_a_file_is_the_thumbnail(tmp_path, written):
    picture = tmp_path / "no 7.png"
    Image.fromarray(np.full((4, 4, 3), 77, np.uint8)).save(picture)
    address = written.format(picture.as_posix().replace(" ", "%20"))
    assert local_path(address) == picture
    with xaicli.Run(tmp_path / "run") as run:
        run.log_facts([1], picture=[address])
        run.log_samples(sample_id=[1], label=[0], loss=[1.0], mode="eval", epoch=1)
    found = xaicli.open_run(tmp_path / "run").samples(max=1, min=0)
    (card,) = (card for section in found.report.sections for block in section.blocks for card in cards_in(block))
    assert set(card.image.pixels) == {77}
    assert address.replace("FILE", "file") in found.html().replace("FILE", "file")
    assert [local_path(text) for text in ("file://host/7.png", "https://host/7.png", "file://")] == [None] * 3


def cards_in(block):
    return block.cards if isinstance(block, Gallery) else ()


def as_csv(rows):
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "jsonl"])
def test_facts_of_a_file_count_before_those_recorded(recorded, tmp_path, kind):
    file = tmp_path / f"facts.{kind}"
    rows = [{"sample_id": i, "camera": "other", "weather": "snow" if i % 2 else "sun"} for i in range(10, 70)]
    match kind:
        case "parquet":
            pl.DataFrame(rows).write_parquet(file)
        case "jsonl":
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        case _:
            file.write_text(as_csv(rows).replace(",", "\t" if kind == "tsv" else ","))
    result = xaicli.open_run(recorded).samples(facts=file, max=N, min=0)
    for row in result.data.to_dicts():
        i = row["sample_id"]
        assert row["facts"]["camera"] == ("other" if i >= 10 else CAMERAS[i % 3])
        assert row["facts"]["weather"] == (None if i < 10 else "snow" if i % 2 else "sun")
        assert row["facts"]["bright"] == i / 100
    told = " | ".join(result.answer.warnings)
    assert f"10 of the 60 ids in facts.{kind} are no samples of the run" in told
    assert f"10 of the run's 60 samples are not in facts.{kind}" in told
    assert "--facts" in result.answer.command_line()


def test_every_question_tells_how_a_file_fits_the_run(recorded: Path, tmp_path: Path) -> None:
    odd, strange = tmp_path / "odd.csv", tmp_path / "strange.csv"
    odd.write_text("sample_id,camera,city\n" + "".join(f"{i},rear,x\n" for i in range(50)) + "9,front,y\n99,rear,x\n")
    strange.write_text("sample_id,city\n1000,x\n")
    of_odd = [
        "camera of 1 sample has several values in odd.csv: the last counts",
        "city of 1 sample has several values in odd.csv: the last counts",
        "camera of 32 samples is another in odd.csv than recorded: the file's counts",  # rear: 1, 4, ..., 49; front: 9
        "1 of the 51 ids in odd.csv are no samples of the run",
        "10 of the run's 60 samples are not in odd.csv",
    ]
    of_strange = [
        "1 of the 1 ids in strange.csv are no samples of the run",
        "60 of the run's 60 samples are not in strange.csv",
    ]
    run = xaicli.open_run(recorded)
    questions: list[Callable[..., Any]] = [
        run.samples,
        run.steps,
        partial(run.check, rule="loss mean < 9"),
        partial(run.check, rule="loss mean by city < 9"),
        partial(run.query, "SELECT 1 AS one FROM samples"),
        partial(run.export, io.BytesIO()),
    ]
    for question in questions:
        for file, expected in ((odd, of_odd), (strange, of_strange)):
            found = question(facts=file)
            said = (found.answer if isinstance(found, Result) else found).warnings
            assert [one for one in said if file.name in one] == expected
    change = run.check(rule="loss mean drop <= 0", baseline=recorded, facts=odd)
    assert [one for one in change.answer.warnings if "odd.csv" in one and "baseline" in one] == [
        f"in the baseline: {one}" for one in of_odd
    ]


def test_an_export_tells_of_facts_of_no_sample(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        run.log_facts([7, 8], site=["north", "south"])
        run.log_samples(sample_id=[1, 2], loss=[0.5, 0.25], mode="eval", epoch=1)
    told = xaicli.open_run(tmp_path / "run").export(io.BytesIO()).warnings
    assert "none of the 2 ids with facts is a sample of the run: 7 against 1" in told


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_a_statement_has_the_facts_that_are_asked_for(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], engine: str
) -> None:
    if engine == "duckdb":
        pytest.importorskip("duckdb")
    (tmp_path / "few.csv").write_text("sample_id,camera,city\n0,other,x\n1,other,y\n")
    sql = "SELECT camera, count(*) AS n, count(city) AS cities FROM facts GROUP BY camera ORDER BY n, camera"
    query = ["query", str(recorded), sql, "--engine", engine]
    others = sorted(zip((19, 19, 20), CAMERAS, strict=True))
    expected = [{"camera": camera, "n": n, "cities": 2 * (n == 2)} for n, camera in [(2, "other"), *others]]
    found = asked(capsys, *query, "--facts", tmp_path / "few.csv")
    assert found["rows"] == expected
    assert found["selection"]["facts"] == str(tmp_path / "few.csv")
    monkeypatch.setenv("XAI_FACTS", str(tmp_path / "few.csv"))
    assert asked(capsys, *query)["rows"] == expected
    monkeypatch.delenv("XAI_FACTS")
    monkeypatch.setenv("XAI_NO_FACTS", "1")
    assert main(query) == 2
    said = capsys.readouterr().err
    assert "--no-facts leaves out every fact" in said
    assert "camera" not in said.partition("hint:")[2]


def test_what_is_wrong_with_a_file_is_counted(recorded, tmp_path):
    file = tmp_path / "odd.csv"
    file.write_bytes(
        b"\xef\xbb\xbfsample_id,loss,where\n0,a,x\n1.0,b,\xff\n2.5,c,z\n,d,z\nnone,e,z\n3,f\n4,g,first\n4,h,last\n"
    )
    result = xaicli.open_run(recorded).samples(facts=file, ids=[0, 1, 3, 4], max=0, min=0)
    facts = {row["sample_id"]: row["facts"] for row in result.data.to_dicts()}
    assert [facts[i]["fact_loss"] for i in (0, 1, 3, 4)] == ["a", "b", "f", "h"]
    assert facts[4]["where"] == "last"
    told = " | ".join(result.answer.warnings)
    assert "the fact loss is called fact_loss" in told
    assert "2 sample ids of odd.csv are none of the run's kind" in told
    assert "1 row of odd.csv has no sample_id" in told
    assert "not all UTF-8" in told
    assert "where of 1 sample has several values in odd.csv: the last counts" in told
    assert "recorded with several values" not in told


def test_lines_of_several_kinds(recorded, tmp_path):
    file = tmp_path / "odd.jsonl"
    file.write_text(
        '{"sample_id": 0, "a": 1, "n": 1}\n{"sample_id": 1, "a": "x", "n": 2.5, "deep": {"k": [1]}}\nno json\n[1]\n'
    )
    result = xaicli.open_run(recorded).samples(facts=file, ids=[0, 1], max=0, min=0)
    facts = {row["sample_id"]: row["facts"] for row in result.data.to_dicts()}
    assert (facts[0]["a"], facts[1]["a"]) == ("1", "x")
    assert (facts[0]["n"], facts[1]["n"]) == (1.0, 2.5)
    assert json.loads(facts[1]["deep"]) == {"k": [1]}
    assert "2 lines of odd.jsonl are no JSON objects" in " | ".join(result.answer.warnings)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.xlsx", b"", "no kind of table"),
        ("a.csv", b"id,a\n1,2\n", "no column sample_id"),
        ("a.csv", b"sample_id,a\nx,2\n", "no sample id of the run's kind"),
        ("a.csv", b"", "cannot be read"),
        ("a.parquet", b"PAR1", "cannot be read"),
        ("gone.csv", None, "cannot be read"),
    ],
)
def test_a_file_that_is_none_is_refused(recorded, tmp_path, name, content, said):
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(XaiError, match=said):
        xaicli.open_run(recorded).samples(facts=file)


def test_ids_of_text_stay_as_they_are_spelled(tmp_path):
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=["007", "7", "x"], loss=[1.0, 2.0, 3.0], mode="eval", epoch=1)
    (tmp_path / "facts.csv").write_text("sample_id,kind\n007,spy\n7,digit\n")
    rows = xaicli.open_run(tmp_path / "run").samples(facts=tmp_path / "facts.csv", max=3, min=0).data.to_dicts()
    assert {row["sample_id"]: row["facts"]["kind"] for row in rows} == {"007": "spy", "7": "digit", "x": None}


def test_samples_without_the_fact_that_groups_are_counted(recorded, tmp_path):
    (tmp_path / "few.csv").write_text("sample_id,kind\n" + "".join(f"{i},a\n" for i in range(12)))
    result = xaicli.open_run(recorded).labels(facts=tmp_path / "few.csv", label_key="kind")
    assert set(result.data["n"]) == {12}
    assert "48 of 60 samples of eval have no kind: they are in no group" in " | ".join(result.answer.warnings)


def test_ids_whose_accents_are_encoded_in_another_way_are_told(tmp_path: Path) -> None:
    names = ["café", "naïve", "plain"]
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=names, loss=[1.0, 2.0, 3.0], mode="eval", epoch=1)
    rows = [unicodedata.normalize("NFD", name) for name in names]
    (tmp_path / "f.csv").write_text("sample_id,a\n" + "".join(f"{name},x\n" for name in [*rows, "other"]), "utf-8")
    said = xaicli.open_run(tmp_path / "run").samples(facts=tmp_path / "f.csv").answer.warnings
    of_them = "2 of them but for how accents are encoded (Unicode's NFC and NFD)"
    assert f"3 of the 4 ids in f.csv are no samples of the run; {of_them}" in said


@pytest.mark.parametrize(
    ("of_run", "of_file", "words"),
    [
        (["007", "010", "x"], ["7", "10", "y"], "zeros before them"),
        (["a.png", "b.png", "c.png"], ["img/a.png", "img\\b.png", "img/d.png"], "the folders before them"),
        (["img/a.png", "img/b.png", "c.png"], ["a.png", "b.png", "d.png"], "the folders before them"),
    ],
)
def test_ids_that_are_spelt_otherwise_in_the_file_are_told(
    tmp_path: Path, of_run: list[str], of_file: list[str], words: str
) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=of_run, loss=[1.0, 2.0, 3.0], mode="eval", epoch=1)
    (tmp_path / "f.csv").write_text("sample_id,a\n" + "".join(f"{name},x\n" for name in of_file))
    said = xaicli.open_run(tmp_path / "run").samples(facts=tmp_path / "f.csv").answer.warnings
    assert f"3 of the 3 ids in f.csv are no samples of the run; 2 of them but for {words}" in said


def test_facts_that_change_are_told_and_the_last_counts(tmp_path):
    with xaicli.Run(tmp_path / "run") as run:
        run.log_facts([1, 2, 3], source=["a", "b", "c"])
        run.log_facts([2], source=["z"])
        run.log_samples(sample_id=[1, 2, 3], loss=[1.0, 2.0, 3.0], mode="eval", epoch=1)
    result = xaicli.open_run(tmp_path / "run").samples()
    assert {row["sample_id"]: row["facts"]["source"] for row in result.data.to_dicts()} == {1: "a", 2: "z", 3: "c"}
    assert "source of 1 sample was recorded with several values: the last counts" in result.answer.warnings


def test_what_a_file_replaces_is_told_apart_from_what_changed(tmp_path):
    with xaicli.Run(tmp_path / "run") as run:
        run.log_facts([1, 2, 3, 4], source=["a", "b", "c", "d"])
        run.log_facts([4], source=["z"])
        run.log_samples(sample_id=[1, 2, 3, 4], loss=[1.0, 2.0, 3.0, 4.0], mode="eval", epoch=1)
    (tmp_path / "new.csv").write_text("sample_id,source\n1,a\n2,x\n3,\n4,y\n")
    result = xaicli.open_run(tmp_path / "run").samples(facts=tmp_path / "new.csv")
    found = {row["sample_id"]: row["facts"]["source"] for row in result.data.to_dicts()}
    assert found == {1: "a", 2: "x", 3: "c", 4: "y"}
    assert [said for said in result.answer.warnings if said.startswith("source of")] == [
        "source of 1 sample was recorded with several values: the last counts",
        "source of 2 samples is another in new.csv than recorded: the file's counts",
    ]


def test_long_texts_are_whole_for_programs_and_short_on_pages(tmp_path):
    long = "word " * 400_000
    with xaicli.Run(tmp_path / "run") as run:
        run.log_facts([1, 2], text=[long, "short"])
        run.log_samples(sample_id=[1, 2], loss=[1.0, 2.0], mode="eval", epoch=1)
    result = xaicli.open_run(tmp_path / "run").samples()
    assert {row["sample_id"]: row["facts"]["text"] for row in result.data.to_dicts()}[1] == long
    assert len(result.html()) < 400_000


def test_markdown_shows_the_ends_of_long_texts(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        run.log_facts([1, 2], text=["begin " + "word " * 200_000 + "end", "b"])
        run.log_samples(sample_id=[1, 2], loss=[1.0, 2.0], mode="eval", epoch=1)
    xaicli.open_run(tmp_path / "run").samples().save(tmp_path / "out", formats=["md"])
    told = (tmp_path / "out" / "samples.md").read_text("utf-8")
    assert len(told) < 10_000
    (cell,) = set(re.findall(r"begin [^|]*end", told))
    assert len(cell) == 300


def test_a_live_run_and_a_table_know_them(tmp_path):
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1, 2], loss=[1.0, 2.0], mode="eval", epoch=1)
        run.log_facts([1, 2], source=["a", "b"])
        run.add_metrics_data({"sample_id": [1, 2], "score": [0.5, 0.25]}, name="scores")
        rows = xaicli.open_run(tmp_path / "run").samples().data.to_dicts()
        assert {row["sample_id"]: row["facts"]["source"] for row in rows} == {1: "a", 2: "b"}
    rows = xaicli.open_run(tmp_path / "run").samples(table="scores", where="source = 'b'").data.to_dicts()
    assert {row["sample_id"] for row in rows} == {2}
    assert rows[0]["facts"] == {"source": "b"}


def test_a_table_whose_rows_say_no_sample_says_that_it_shows_no_facts(tmp_path):
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1, 2], loss=[1.0, 2.0], mode="eval", epoch=1)
        run.log_facts([1, 2], source=["a", "b"])
        run.add_metrics_data({"example_id": [0, 1], "score": [0.5, 0.25]}, name="scores")
    run = xaicli.open_run(tmp_path / "run")
    found = run.samples(table="scores")
    assert "facts" not in found.data.columns
    assert [said for said in found.answer.warnings if "say example_id: none are shown" in said]
    assert not run.samples(table="scores", no_facts=True).answer.warnings


def test_info_and_sql_tell_of_facts(recorded, capsys):
    found = {row["fact"]: row for row in asked(capsys, "info", recorded)["facts"]}
    assert found["camera"] == {"fact": "camera", "type": "string", "samples": N, "values": 3}
    assert found["bright"]["values"] == N
    rows = asked(capsys, "query", recorded, "SELECT camera, count(*) AS n FROM facts GROUP BY camera")["rows"]
    assert {row["camera"]: row["n"] for row in rows} == dict.fromkeys(CAMERAS, N // 3)


def test_a_run_takes_a_file_of_facts(tmp_path):
    (tmp_path / "facts.csv").write_text("sample_id,source\n1,web\n2,book\n")
    with xaicli.Run(tmp_path / "run", facts=tmp_path / "facts.csv") as run:
        run.log_samples(sample_id=[1, 2], loss=[1.0, 2.0], mode="eval", epoch=1)
    rows = xaicli.open_run(tmp_path / "run").samples().data.to_dicts()
    assert {row["sample_id"]: row["facts"]["source"] for row in rows} == {1: "web", 2: "book"}


def test_names_that_stand_for_others_are_told_apart(tmp_path):
    with xaicli.Run(tmp_path / "run") as run:
        run.log_facts([1, 2], **{"*": ["a", "b"], "^s.*$": ["c", "d"], "": ["e", "f"], "group": ["g", "h"]})
        run.log_facts([2], **{"*": ["z"], "group": ["k"]})
        run.log_samples(sample_id=[1, 2], loss=[1.0, 2.0], mode="eval", epoch=1)
    result = xaicli.open_run(tmp_path / "run").samples(max=2, min=0)
    assert {row["sample_id"]: row["facts"] for row in result.data.to_dicts()} == {
        1: {"fact_*": "a", "fact_^s.*$": "c", "fact_": "e", "group": "g"},
        2: {"fact_*": "z", "fact_^s.*$": "d", "fact_": "f", "group": "k"},
    }
    assert 'the fact "*" is called fact_*' in " ".join(result.answer.warnings)
    result.save(tmp_path / "out", ["csv"])
    row = next(csv.DictReader(io.StringIO((tmp_path / "out" / "samples.csv").read_text())))
    assert (row["group"], row["fact_group"]) == ("max", "k")  # the column of the answer, and the fact


def test_saliency_tells_what_its_samples_are(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    inputs = torch.rand(2, 1, 8, 8)
    with xaicli.Run(tmp_path / "run") as run:
        run.log_facts([0, 1], camera=["front", "<b>rear</b>"])
        run.log_inputs([0, 1], inputs, label=[0, 1])
        run.save_checkpoint(model, example_inputs=inputs, label_names=["a", "b", "c"])
    asked_for = ["saliency", str(tmp_path / "run"), "--samples", "2", "--methods", "gradient", "--json"]
    assert main(asked_for) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["facts"] for row in rows] == [{"camera": "front"}, {"camera": "<b>rear</b>"}]
    page = (tmp_path / "run" / "reports" / "saliency.html").read_text()
    assert "<dt>camera</dt><dd><span>front</span></dd>" in page
    assert "<b>rear" not in page
    assert main([*asked_for, "--no-facts"]) == 0
    assert "camera" not in capsys.readouterr().out


def test_runs_side_by_side_tell_what_their_samples_are(tmp_path, capsys):
    for name, loss in (("a", [1.0, 2.0, 3.0]), ("b", [1.0, 5.0, 2.0])):
        with xaicli.Run(tmp_path / name) as run:
            run.log_samples(sample_id=[1, 2, 3], loss=loss, mode="eval", epoch=1)
            if name == "b":
                run.log_facts([1, 2, 3], camera=["left", "right", "up"], page=["x", "https://example.org/2", "z"])
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--max", "1", "--min", "1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    told = [(row["sample_id"], row["facts"]["camera"]) for row in rows if row["kind"] == "sample"]
    assert told == [(2, "right"), (3, "up")]
    assert all(row["facts"] is None for row in rows if row["kind"] != "sample")
    page = xaicli.compare(tmp_path / "a", tmp_path / "b", max=1, min=1).html()
    assert "right</td>" in page
    assert 'href="https://example.org/2"' in page
    hidden = xaicli.compare(tmp_path / "a", tmp_path / "b", max=1, min=1, no_facts=True)
    assert "facts" not in hidden.data.columns


def test_samples_that_break_a_rule_are_told_with_what_they_are(recorded):
    wrong = xaicli.open_run(recorded).check(rule="loss max <= 3.5")
    found = wrong.answer.extra["samples"].to_dicts()
    beyond = [i for i in range(N) if LOSS[i] / 2 > 3.5]
    assert sorted((int(row["sample_id"]), row["facts"]["camera"], row["facts"]["bright"]) for row in found) == [
        (i, CAMERAS[i % 3], i / 100) for i in beyond
    ]
    assert "Samples that break a rule" in wrong.html()
    kept = xaicli.open_run(recorded).check(rule="loss max <= 100")
    assert "samples" not in kept.answer.extra


@pytest.fixture
def shrinking(tmp_path):
    """Ten samples, of which the last epoch has six; facts of three that are none."""
    with xaicli.Run(tmp_path / "run") as run:
        run.log_facts(range(13), day=[datetime.datetime(2024, 1, 1 + i, tzinfo=datetime.UTC) for i in range(13)])
        for epoch, n in ((1, 10), (2, 6)):
            run.log_samples(sample_id=range(n), loss=np.arange(n) + 0.5, mode="eval", epoch=epoch)
    return tmp_path / "run"


@pytest.mark.parametrize("where", [None, "loss > 4"])
def test_samples_of_any_epoch_and_selection_are_no_strangers_to_a_file(shrinking, tmp_path, where):
    (tmp_path / "far.csv").write_text("sample_id,far\n" + "".join(f"{i},{i}\n" for i in range(1, 12)))
    told = xaicli.open_run(shrinking).samples(facts=tmp_path / "far.csv", where=where).answer.warnings
    assert "2 of the 11 ids in far.csv are no samples of the run" in told
    assert "1 of the run's 10 samples are not in far.csv" in told


def test_info_tells_of_recorded_facts_of_no_sample_and_names_types_whole(shrinking, capsys):
    assert main(["info", str(shrinking)]) == 0
    out = capsys.readouterr()
    assert "3 ids with facts are no samples of the run" in " ".join(out.err.split())
    assert re.search(r"day\s+datetime \(UTC\)\s+13\s+13", out.out)


DAYS = [datetime.date(2023, 1, 1) + datetime.timedelta(days=37 * i % 101) for i in range(100)]
OF_DAYS: dict[str, list[Any]] = {
    "days": [*DAYS, None],
    "times": [*(datetime.datetime.combine(day, datetime.time(8, 30, i % 60)) for i, day in enumerate(DAYS)), None],
    "zones": [*(datetime.datetime.combine(day, datetime.time(8), datetime.UTC) for day in DAYS), None],
}


@pytest.fixture(scope="module", params=OF_DAYS)
def dated(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> tuple[Path, list[Any]]:
    """A hundred samples of as many dates, and one without."""
    root = tmp_path_factory.mktemp("dated") / "run"
    with xaicli.Run(root, label_names=["a", "b"]) as run:
        run.log_facts(range(101), day=OF_DAYS[request.param], few=[OF_DAYS[request.param][i % 7] for i in range(101)])
        for epoch in (1, 2):
            loss = [i * epoch / 10 for i in range(101)]
            prediction = [i % 3 % 2 for i in range(101)]
            label = [i % 2 for i in range(101)]
            run.log_samples(
                sample_id=range(101), label=label, prediction=prediction, loss=loss, mode="eval", epoch=epoch
            )
    return root, OF_DAYS[request.param]


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_labels_that_are_many_dates_go_by_fifths(dated: tuple[Path, list[Any]], engine: str) -> None:
    root, values = dated
    place = {value: at for at, value in enumerate(sorted(values[:100]))}
    result = xaicli.open_run(root).labels(label_key="day", epoch="last", metric="loss", engine=engine)
    rows = result.data.to_dicts()
    assert [(row["label"], row["n"]) for row in rows] == [(fifth, 20) for fifth in range(1, 6)]
    for fifth, row in enumerate(rows):
        own = [i / 5 for i in range(100) if place[values[i]] // 20 == fifth]
        assert row["mean"] == pytest.approx(sum(own) / 20, rel=1e-5)
    first, last = (str(sorted(values[:100])[at]).removesuffix("+00:00") for at in (20, 39))
    said = rows[1]["name"]
    assert said.startswith(first)
    assert f" to {last}" in said
    (told,) = [words for words in result.answer.warnings if "day" in words]
    assert told.startswith("1 ")


def test_labels_that_are_few_dates_go_by_value(dated: tuple[Path, list[Any]]) -> None:
    root, values = dated
    rows = xaicli.open_run(root).labels(label_key="few", epoch="last", metric="loss").data.to_dicts()
    assert [row["label"] for row in rows] == sorted(values[:7])


def test_a_confusion_by_many_dates_is_of_each_fifth(dated: tuple[Path, list[Any]]) -> None:
    root, values = dated
    place = {value: at for at, value in enumerate(sorted(values[:100]))}
    result = xaicli.open_run(root).confusion(by="day", epoch="last")
    found = {row["value"]: row for row in result.answer.extra["by"]}
    assert len(found) == 6
    assert found["(missing)"]["n"] == 1
    same = xaicli.open_run(root).labels(label_key="day", epoch="last", metric="loss").data["name"].to_list()
    for fifth, name in enumerate(same):
        own = [i for i in range(100) if place[values[i]] // 20 == fifth]
        assert found[name]["n"] == 20
        assert found[name]["accuracy"] == sum(i % 2 == i % 3 % 2 for i in own) / 20
    assert f"day {same[1][:10]}" in result.html()


def test_samples_without_a_fact_are_called_the_same_everywhere(tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run", label_names=["a", "b"]) as run:
        run.log_facts(range(6), site=["x", None] * 3, beds=[1, 2, None] * 2)
        label, prob = [0, 1] * 3, [0.9, 0.2, 0.8, 0.4, 0.7, 0.6]
        probs = [[1 - p, p] for p in prob]
        run.log_samples(sample_id=range(6), label=label, probs=np.array(probs), mode="eval", epoch=1)
    opened = xaicli.open_run(tmp_path / "run")
    for column, known in (("site", {"x": 3, "(missing)": 3}), ("beds", {1: 2, 2: 2, "(missing)": 2})):
        confusion, errors = (ask(by=column).answer.extra for ask in (opened.confusion, opened.errors))
        assert {row["value"]: row["n"] for row in confusion["by"]} == known
        assert {row["value"]: row["n"] for row in errors["groups"]} == {str(value): n for value, n in known.items()}


INFINITE = {"-inf": 40, "inf": 60, "(missing)": 20}
"""Values of `snr` that are no finite number; 100 are in fifths. Of `gain` there are few, so each is a group."""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples with a fact of many numbers and one of few, both with infinite ones and with some that are missing."""
    root = tmp_path_factory.mktemp("measured") / "run"
    snr = [math.inf] * 60 + [-math.inf] * 40 + [math.nan] * 10 + [None] * 10 + [float(i) + 0.5 for i in range(100)]
    gain = [math.inf, 0.5, 1.0, math.nan, 0.5, None, 1.0] * 30
    with xaicli.Run(root, label_names=["a", "b"]) as run:
        run.log_facts(range(220), snr=snr)
        run.log_facts(range(210), gain=gain)
        label, loss = np.arange(220) % 2, np.arange(220) / 10
        probs = np.stack([0.9 - 0.8 * label, 0.1 + 0.8 * label], axis=1)
        run.log_samples(sample_id=range(220), label=label, probs=probs, loss=loss, mode="eval", epoch=1)
    return root


def _sizes(name: str) -> dict[str, int]:
    """How many samples each group of the fact has, by what it is called."""
    if name == "snr":
        names = ("up to 20.3", "20.3 to 40.1", "40.1 to 59.9", "59.9 to 79.7", "above 79.7")
        return dict.fromkeys(names, 20) | INFINITE
    return {"0.5": 60, "1.0": 60, "inf": 30, "(missing)": 70}


@pytest.mark.parametrize("name", ["snr", "gain"])
def test_infinite_numbers_are_groups_and_only_what_is_no_number_is_missing(
    measured: Path, name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    opened, sizes = xaicli.open_run(measured), _sizes(name)
    for ask, key in ((opened.confusion, "by"), (opened.errors, "groups")):
        told = [row for row in ask(by=name).answer.extra[key] if row["column"] == name]
        assert {str(row["value"]): row["n"] for row in told} == sizes
    groups = {label: n for label, n in sizes.items() if label != "(missing)"}
    of_labels = {}
    for engine in ("polars", "duckdb"):
        answer = opened.labels(label_key=name, metric="loss", engine=engine).answer
        assert dict(answer.data.select("name", "n").iter_rows()) == groups
        missing = f"{sizes['(missing)']} of 220 samples of eval have no {name}: they are in no group"
        assert answer.warnings == (missing,)
        of_labels[engine] = answer.data
    assert_frame_equal(*(frame.sort("label").select("label", "n", "mean") for frame in of_labels.values()))
    mix = opened.select(rule="balanced", by=name, n=50).answer
    mixed = {row["value"]: row["n"] for row in mix.extra["mix"] if row["column"] == name}
    assert mixed == {**groups, None: sizes["(missing)"]}
    assert f"{sizes['(missing)']} samples of eval have no {name}, and are left out" in mix.warnings
    both = xaicli.compare([measured, measured], label_key=name).data.filter(pl.col("kind") == "label")
    assert {row["name"]: row["n"] for row in both.iter_rows(named=True)} == {g: [n, n] for g, n in groups.items()}
    reported = asked(capsys, "track-report", measured, "--label-key", name, "-o", tmp_path)["labels"]
    assert {row["name"]: row["n"] for row in reported} == groups
    checked = opened.check(rule=f"loss mean by {name} <= 1000").answer
    assert {row["group"]: row["n"] for row in checked.data.iter_rows(named=True)} == groups


def test_infinite_numbers_are_a_slice(measured: Path) -> None:
    found = xaicli.open_run(measured).slices(by="snr", min_n=2, metric="loss").data
    told = {row["facts"][0]["value"]: (row["n"], row["mean"]) for row in found.iter_rows(named=True)}
    assert told["inf"] == (60, pytest.approx(2.95))
    assert "(missing)" not in {value for value, (n, _) in told.items() if n != 20}


PAGES: dict[str, Callable[[xaicli.RunReader, Path], Result]] = {
    "samples": lambda run, _: run.samples(epoch="last"),
    "findings": lambda run, _: run.findings(),
    "select": lambda run, _: run.select(rule="hardest", n=4),
    "confusion": lambda run, _: run.confusion(),
    "a cell": lambda run, _: run.confusion(cell="0,1"),
    "a step": lambda run, _: run.steps(step=1, mode="eval"),
    "tasks": lambda run, folder: run.relabel_export(folder / "tasks.csv", rule="hardest", n=4),
    "corrections": lambda run, folder: run.relabel_apply(folder / "said.csv"),
}


@pytest.fixture(scope="module")
def pictured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictured")
    ids, wrong = list(range(24)), {2, 3, 7, 11}
    with xaicli.Run(root / "run", label_names=["a", "b"]) as run:
        run.log_facts(ids, camera=[f"KAM{i}" for i in ids])
        run.log_images(ids, np.full((24, 8, 8, 3), 90, np.uint8))
        label = np.array([i % 2 for i in ids])
        sure = np.array([0.05 if i in wrong else 0.9 + i / 1000 for i in ids])
        probs = np.where(np.arange(2) == label[:, None], sure[:, None], 1 - sure[:, None])
        for epoch in (1, 2, 3):
            run.log_samples(sample_id=ids, label=label, probs=probs, mode="eval", epoch=epoch, step=epoch)
    (root / "said.csv").write_text("sample_id,label\n2,b\n7,a\n")
    return root


@pytest.mark.parametrize("page", PAGES)
def test_every_card_says_what_its_sample_is(pictured: Path, page: str) -> None:
    html = PAGES[page](xaicli.open_run(pictured / "run"), pictured).html()
    cards = re.findall(r'<article class="card.*?</article>', html, re.DOTALL)
    assert cards
    for card in cards:
        (sample,) = re.findall(r"<h4>#(\d+)</h4>", card)
        (facts,) = re.findall(r'<dl class="facts">.*?</dl>', card)
        assert f"<dt>camera</dt><dd><span>KAM{sample}</span></dd>" in facts


def test_runs_side_by_side_tell_the_facts_of_each(tmp_path: Path) -> None:
    told: dict[str, dict[str, list[Any]]] = {
        "a": {"camera": ["left", "up", "down", None], "size": [1, 2, 3, 4], "night": ["no", "yes", "no", "yes"]},
        "b": {"camera": ["right", "up", None, None], "size": ["1", "2", "3", "large"]},
        "c": {},
    }
    for name, facts in told.items():
        with xaicli.Run(tmp_path / name) as run:
            if facts:
                run.log_facts(range(4), **facts)
            run.log_samples(sample_id=range(4), loss=[1.0, 2.0, 3.0, 4.0], mode="eval", epoch=1)

    def shown(*names: str, **how: Any) -> tuple[dict[int, Any], list[str]]:
        answer = xaicli.compare([tmp_path / name for name in names], ids=range(4), **how).answer
        rows = answer.data.filter(pl.col("group") == "listed")
        said = [words for words in answer.warnings if "differs" in words or "recorded with" in words]
        return dict(rows.select("sample_id", "facts").iter_rows()), said

    sizes, nights = ["1", "2", "3", "large"], ["no", "yes", "no", "yes"]
    for names, cameras, size in (
        ("ab", ["right", "up", "down", None], sizes),
        ("ba", ["left", "up", "down", None], ["1", "2", "3", "4"]),
        ("bac", ["left", "up", "down", None], ["1", "2", "3", "4"]),
    ):
        facts, said = shown(*names)
        assert [facts[i]["camera"] for i in range(4)] == cameras
        assert [facts[i]["night"] for i in range(4)] == nights
        assert [facts[i]["size"] for i in range(4)] == size
        ends = "differs between the runs: that of the last counts for all"
        assert said == [f"camera of 1 sample {ends}", f"size of 1 sample {ends}"]
    assert shown("a", "c") == ({i: {name: told["a"][name][i] for name in told["a"]} for i in range(4)}, [])


def test_runs_side_by_side_are_grouped_and_picked_by_the_facts_that_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sample is in one group in all runs, whichever of them knows the fact; of those that differ the last counts."""
    told: dict[str, dict[str, list[Any]]] = {
        "a": {"camera": ["left", "left", "right", "right", None], "dim": ["1", "2", "3", "4", "5"]},
        "b": {},
        "c": {"camera": [None, None, None, "left", None], "night": ["no", "yes", "yes", "no", "no"]},
    }
    losses = {"a": [1.0, 2.0, 4.0, 8.0, 16.0], "b": [2.0, 4.0, 8.0, 16.0, 32.0], "c": [3.0, 5.0, 9.0, 17.0, 33.0]}
    for name, facts in told.items():
        with xaicli.Run(tmp_path / name) as run:
            if facts:
                run.log_facts(range(5), **facts)
            other = {"dim": [0.5] * 5} if name == "b" else {}
            run.log_samples(sample_id=range(5), loss=losses[name], mode="eval", epoch=1, **other)
    camera = ["left", "left", "right", "left", None]

    def means(chosen: Any, names: str) -> list[float]:
        return [sum(x := [losses[name][i] for i in range(5) if chosen(i)]) / len(x) for name in names]

    for names in ("abc", "bac"):
        runs = [tmp_path / name for name in names]
        found = asked(capsys, "compare", *runs, "--label-key", "camera", "--metric", "loss")
        groups = {row["label"]: (row["values"], row["n"]) for row in found["rows"] if row["kind"] == "label"}
        assert groups == {
            side: (means(lambda i, side=side: camera[i] == side, names), [n] * 3)
            for side, n in (("left", 3), ("right", 1))
        }
        shown = {row["sample_id"]: row["facts"]["camera"] for row in found["rows"] if row["kind"] == "sample"}
        assert shown == {i: camera[i] for i in shown}
        assert shown
        said = [words for words in found["warnings"] if "camera" in words]
        assert said == [
            "1 of 5 samples of eval have no camera: they are in no group",
            "camera of 1 sample differs between the runs: that of the last counts for all",
        ]
        where = ["--where", "camera = 'left' AND night = 'no'"]
        (row,) = (
            r for r in asked(capsys, "compare", *runs, *where, "--metric", "loss")["rows"] if r["kind"] == "metric"
        )
        assert (row["values"], row["n"]) == (means(lambda i: i in (0, 3), names), [2] * 3)
        # A fact of one run that is a column of another's rows is called alike in all.
        dims = asked(capsys, "compare", *runs, "--label-key", "fact_dim", "--metric", "loss")["rows"]
        assert {row["label"]: row["n"] for row in dims if row["kind"] == "label"} == {key: [1] * 3 for key in "12345"}
    answer = xaicli.compare(*(tmp_path / name for name in "abc"), label_key="camera", metric="loss")
    page = answer.html()
    assert '"#0 · camera left · fact_dim 1 · night no"' in page
    assert '"#3 · camera left · fact_dim 4 · night no"' in page
    given = ["compare", *(str(tmp_path / name) for name in "abc"), "--metric", "loss", "--label-key", "camera"]
    assert main(given) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["eval", "loss", "right", "4", "8", "9", "5", "1", "1"] in lines
    assert main([*given, "--no-facts"]) == 1


def test_a_run_that_is_left_out_of_a_folder_says_nothing_of_the_others_samples(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, camera in (("a", "left"), ("b", "left"), ("c", "other")):
        with xaicli.Run(tmp_path / name) as run:
            run.log_facts([0, 1], camera=[camera, "right"], **({"lens": ["wide"] * 2} if name == "c" else {}))
            run.log_samples(sample_id=[0, 1], loss=[1.0, 2.0], mode="train" if name == "c" else "eval", epoch=1)
    given = ("--mode", "eval", "--label-key", "camera")
    found = asked(capsys, "compare", tmp_path, *given, "--where", "camera != 'right'")
    assert [row["label"] for row in found["rows"] if row["kind"] == "label"] == ["left"]
    assert not any("differs between" in words for words in found["warnings"])
    assert any(f"{tmp_path / 'c'} is left out" in words for words in found["warnings"])
    assert main(["compare", str(tmp_path), *given, "--where", "lens = 'wide'"]) == 2
    assert "lens" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [("check", "--rule", "loss mean by nosuch <= 1"), ("select", "--rule", "balanced", "--by", "nosuch")]
)
def test_what_exists_is_called_columns_and_facts(
    recorded: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert main([words[0], str(recorded), *words[1:]])
    said = " ".join(" ".join(capsys.readouterr()).split())
    assert "no column or fact 'nosuch'" in said
    assert "columns and facts: " in said or words[0] == "check"  # whose verdict says what is missing, without the hint
    assert "column or facts" not in said


def test_the_dots_of_a_data_map_say_what_their_samples_are(tmp_path: Path) -> None:
    """Also those of a run without facts are named."""
    draw = np.random.default_rng(0)
    for name in ("with", "without"):
        with xaicli.Run(tmp_path / name) as run:
            if name == "with":
                run.log_facts([0, 1, 2], camera=["front", "rear", None], weather=["rain", None, None])
            for epoch in (1, 2, 3):
                logits = draw.normal(size=(3, 2))
                run.log_samples(sample_id=[0, 1, 2], label=[0, 1, 1], logits=logits, mode="eval", epoch=epoch)
    run = xaicli.open_run(tmp_path / "with")
    for page, named in ((run.dynamics().html(), [0, 1, 2]), (run.report().html(), [0, 1, 2])):
        dots = {0: '"#0 0 · camera front · weather rain"', 1: '"#1 1 · camera rear"', 2: '"#2 1"'}
        assert [i for i in dots if dots[i] in page] == named
    for result in (run.dynamics(no_facts=True), xaicli.open_run(tmp_path / "without").dynamics()):
        assert [name in result.html() for name in ('"#0 0"', '"#1 1"', '"#2 1"')] == [True] * 3


def test_several_files_are_all_read_and_the_last_counts(
    recorded: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first one.csv", tmp_path / "second.csv"
    first.write_text("sample_id,site,beds\n" + "".join(f"{i},s{i % 2},{i}\n" for i in range(N)))
    second.write_text("sample_id,beds,ward\n" + "".join(f"{i},{'many' if i == 1 else i},w{i}\n" for i in range(50)))
    both = ["--facts", first, "--facts", second]
    answer = asked(capsys, "samples", recorded, *both, "--ids", "1,2,55", "--max", "0", "--min", "0")
    told = {row["sample_id"]: row["facts"] for row in answer["rows"]}
    wanted = {1: ("s1", "many", "w1"), 2: ("s0", "2", "w2"), 55: ("s1", "55", None)}
    assert {i: (facts["site"], facts["beds"], facts["ward"]) for i, facts in told.items()} == wanted
    assert {facts["camera"] for facts in told.values()} == {CAMERAS[1], CAMERAS[2]}
    said = "beds of 1 sample has several values in first one.csv, second.csv: the last counts"
    assert said in answer["warnings"]
    assert answer["selection"]["facts"] == f"{first}, {second}"
    assert len(
        asked(capsys, "samples", recorded, *both, "--where", "site = 's1' AND ward = 'w3'", "--min", "0")["rows"]
    )
    checked = asked(
        capsys, "check", recorded, *both, "--rule", "loss mean by site <= 100", "--rule", "loss n by ward <= 1"
    )
    assert {row["group"] for row in checked["rows"]} == {"s0", "s1", *(f"w{i}" for i in range(50))}
    monkeypatch.setenv("XAI_FACTS", str(first))
    (row,) = asked(capsys, "samples", recorded, "--ids", "3", "--max", "0", "--min", "0")["rows"]
    assert row["facts"]["site"] == "s1"
    sites = xaicli.open_run(recorded).labels(facts=[first, str(second)], label_key="site", metric="loss", epoch="last")
    assert sites.data["n"].to_list() == [30, 30]


@pytest.mark.parametrize("setting", ["variable", "file"])
def test_a_flag_about_facts_counts_before_a_variable_and_that_before_the_settings_file(
    tmp_path, monkeypatch, capsys, setting
):
    with xaicli.Run(tmp_path / "run") as run:
        run.log_facts([0, 1], camera=["front", "rear"])
        run.log_samples(sample_id=[0, 1], label=[0, 1], loss=[1.0, 2.0], mode="eval", epoch=1)
    (tmp_path / "facts.csv").write_text("sample_id,site\n0,north\n1,south\n")
    monkeypatch.chdir(tmp_path)

    def facts(*options):
        found = asked(capsys, "samples", "run", "--ids", "1", "--max", "0", "--min", "0", *options)
        return found["rows"][0].get("facts")

    def let(**settings):
        if setting == "variable":
            for name, value in settings.items():
                monkeypatch.setenv(f"XAI_{name.upper()}", str(value))
        else:
            lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
            (tmp_path / "xai.toml").write_text("\n".join(lines))

    let(facts="facts.csv")
    assert facts() == {"camera": "rear", "site": "south"}
    assert facts("--no-facts") is None
    if setting == "file":
        monkeypatch.setenv("XAI_NO_FACTS", "1")
        assert facts() is None
        assert facts("--facts", "facts.csv") == {"camera": "rear", "site": "south"}
    monkeypatch.delenv("XAI_FACTS", raising=False)
    monkeypatch.delenv("XAI_NO_FACTS", raising=False)
    (tmp_path / "xai.toml").unlink(missing_ok=True)
    let(no_facts=True)
    assert facts() is None
    assert facts("--facts", "facts.csv") == {"camera": "rear", "site": "south"}
    assert main(["samples", "run", "--facts", "facts.csv", "--no-facts"]) == 2
    assert "exclude one another" in capsys.readouterr().err


@pytest.fixture(params=["logged", "logged by an older version", "CSV", "JSON lines", "Parquet", "beside the run"])
def holes(request, tmp_path, monkeypatch):
    """Eight samples whose speed is 1.5 or a hole, in each way that facts come; and the options that name them."""
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"sample_id": range(8), "speed": [1.5, math.nan] * 4})
    if request.param == "logged by an older version":
        monkeypatch.setattr("xaicli.recorder.facts.without_nan", lambda column: column)
    table = tmp_path / {"JSON lines": "facts.jsonl", "Parquet": "facts.parquet"}.get(request.param, "facts.csv")
    if table.suffix == ".jsonl":
        table.write_text("".join(json.dumps(row) + "\n" for row in frame.to_dict("records")))
    elif table.suffix == ".parquet":
        pl.DataFrame({"sample_id": range(8), "speed": [1.5, math.nan] * 4}).write_parquet(table)
    else:
        frame.to_csv(table, index=False, na_rep="nan" if request.param == "beside the run" else "")
    with xaicli.Run(tmp_path / "run", strict=True) as run:
        losses = [i / 10 for i in range(8)]
        run.log_samples(sample_id=range(8), label=[0, 1] * 4, prediction=[0] * 8, loss=losses, epoch=1, mode="eval")
        if request.param.startswith("logged"):
            run.log_facts(frame.sample_id, speed=frame.speed)
        elif request.param != "beside the run":
            run.log_facts(facts=table)
    return tmp_path / "run", ["--facts", table] if request.param == "beside the run" else []


def test_nan_of_a_fact_is_no_value(holes, capsys):
    run, options = holes
    if not options:
        told = [one for one in asked(capsys, "info", run)["facts"] if one["fact"] == "speed"]
        assert [(one["samples"], one["values"]) for one in told] == [(4, 1)]
    for engine in ("polars", "duckdb"):
        for where, expected in (
            ("speed > 1000", {}),
            ("speed IS NULL", {1: 4}),
            ("speed IS NOT NULL", {0: 4}),
            ("NOT speed < 1", {0: 4}),
        ):
            words = ["labels", run, "--metric", "loss", "--where", where, "--engine", engine, *options]
            assert {row["label"]: row["n"] for row in asked(capsys, *words)["rows"]} == expected
        sql = "SELECT count(speed) AS n, avg(speed) AS mean, max(speed) AS most FROM facts"
        if not options:
            found = asked(capsys, "query", run, sql, "--engine", engine)["rows"]
            assert found == [{"n": 4, "mean": 1.5, "most": 1.5}]
    picked = asked(capsys, "samples", run, "--where", "speed IS NULL", "--max", 9, "--min", 0, *options)["rows"]
    assert sorted(row["sample_id"] for row in picked) == [1, 3, 5, 7]
    assert not any(row["facts"].get("speed") for row in picked)
    groups = asked(capsys, "confusion", run, "--by", "speed", *options)["by"]
    assert {one["value"]: one["n"] for one in groups} == {1.5: 4, "(missing)": 4}


@pytest.mark.parametrize("kind", ["pandas", "polars", "Arrow", "dict", "list of frames"])
def test_a_table_in_memory_is_no_file_of_facts_and_is_told_the_way(recorded, kind):
    pd = pytest.importorskip("pandas")
    columns = {"sample_id": [0, 1], "place": ["in", "out"]}
    frame = {"polars": pl.DataFrame(columns), "Arrow": pl.DataFrame(columns).to_arrow(), "dict": columns}.get(
        kind, pd.DataFrame(columns)
    )
    given = [frame] if kind == "list of frames" else frame
    opened = xaicli.open_run(recorded)
    asks = [
        partial(getattr(opened, name), facts=given) for name in ("samples", "labels", "slices", "errors", "findings")
    ]
    asks += [
        partial(opened.select, rule="hardest", n=1, facts=given),
        partial(opened.check, rule="x <= 1", facts=given),
    ]
    asks += [partial(opened.samples, facts=given, no_facts=True)]
    asks += [partial(xaicli.compare, [recorded, recorded], facts=given)]
    asks += [partial(xaicli.Table, [1, 2], facts=frame)] if kind != "dict" else []
    said = f"facts= takes a CSV, Parquet or JSON-lines file, not {type(frame).__name__}"
    for ask in asks:
        with pytest.raises(UsageError, match=said) as told:
            ask()
        assert told.value.hint
