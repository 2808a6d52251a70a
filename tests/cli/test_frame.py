"""What every command has in common: help, errors, exit statuses, settings, where the run is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from xaicli import Run, __version__
from xaicli.cli import COMMANDS
from xaicli.cli.settings import defaults_of, read_settings
from xaicli.errors import UsageError


def test_version(xai) -> None:
    assert xai("--version") == (0, f"xai {__version__}\n", "")


def test_no_arguments_show_the_help(xai) -> None:
    status, out, err = xai()
    assert status == 2
    assert "track-report" in out + err


def test_the_help_lists_every_command(xai) -> None:
    status, out, _ = xai("--help")
    assert status == 0
    assert [name for name in COMMANDS if name.replace("_", "-") not in out] == []


@pytest.mark.parametrize("name", [name.replace("_", "-") for name in COMMANDS])
def test_every_command_has_help_with_an_example(xai, name: str) -> None:
    status, out, _ = xai(name, "-h")
    usage, _, rest = out.partition("\n")
    assert status == 0
    assert f"xai {name}" in usage
    assert "Commands:" in rest or f"xai {name}" in rest


def test_an_unknown_command_offers_the_close_one(xai) -> None:
    status, out, err = xai("sample")
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert "samples" in err


def test_an_unknown_option_is_wrong_usage(xai, sample_run: Path) -> None:
    status, out, err = xai("samples", sample_run, "--maxi", 3)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert "hint: " in err


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda _: None, "does not exist"),
        (lambda path: path.mkdir(), "is empty"),
        (lambda path: path.write_text("hello"), "is a file"),
        (lambda path: [path.mkdir(), (path / "notes.txt").write_text("hello")], "is not a run"),
    ],
    ids=["missing", "empty", "file", "no run"],
)
@pytest.mark.parametrize("name", ["track-report", "samples", "labels", "info"])
def test_a_path_that_is_no_run(xai, tmp_path: Path, name: str, make, said: str) -> None:
    path = tmp_path / "place"
    make(path)
    status, out, err = xai(name, path)
    assert (status, out) == (1, "")
    first, second = err.splitlines()
    assert first.startswith("error: ")
    assert str(path) in first
    assert said in first
    assert second.startswith("hint: ")


def test_a_folder_of_runs_is_pointed_into(xai, sample_run: Path) -> None:
    status, _, err = xai("info", sample_run.parent)
    assert status == 1
    assert f"runs below it: {sample_run}" in err


def test_a_broken_manifest_is_named(xai, tmp_path: Path) -> None:
    (tmp_path / "xai.json").write_text("{")
    status, _, err = xai("info", tmp_path)
    assert status == 1
    assert str(tmp_path / "xai.json") in err


def test_a_newer_format_is_refused(xai, tmp_path: Path) -> None:
    (tmp_path / "xai.json").write_text('{"format": "xai-run", "version": 99, "run_id": "x", "created_at": ""}')
    status, _, err = xai("info", tmp_path)
    assert status == 1
    assert "format version 99" in err
    assert "upgrade" in err


def test_the_run_is_found_without_being_named(xai, sample_run: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(sample_run)
    here = xai("info", "--json")
    monkeypatch.chdir(tmp_path)
    nowhere = xai("info", "--json")
    monkeypatch.setenv("XAI_RUN", str(sample_run))
    named = xai("info", "--json")
    monkeypatch.delenv("XAI_RUN")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "newest").symlink_to(sample_run)
    assert nowhere[0] == 1
    assert "no run given and none found" in nowhere[2]
    assert here[0] == named[0] == 0
    assert json.loads(here[1])["rows"] == json.loads(named[1])["rows"]


def test_flag_beats_variable_beats_file_beats_default(xai, sample_run: Path, tmp_path: Path, monkeypatch) -> None:
    def highest(*arguments: object) -> int:
        status, out, err = xai("samples", sample_run, "--json", "--min", 0, *arguments)
        assert status == 0, err
        return len(json.loads(out)["rows"])

    monkeypatch.chdir(tmp_path)
    assert highest() == 5
    Path("pyproject.toml").write_text("[tool.xai]\nmax = 4\n")
    assert highest() == 4
    Path("xai.toml").write_text("[samples]\nmax = 3\n")
    assert highest() == 3
    monkeypatch.setenv("XAI_MAX", "2")
    assert highest() == 2
    assert highest("--max", 1) == 1


def test_a_default_that_does_not_apply_is_passed_over_and_typed_it_is_refused(
    xai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Run(tmp_path / "run", label_names=["cat", "dog"]) as run:
        run.log_facts([1, 2, 3, 4], camera=["a", "b", "a", "b"])
        for step, mode in ((1, "train"), (2, "eval")):
            columns = {"label": [0, 0, 0, 1], "prediction": [0, 1, 1, 1], "loss": [0.1, 2.0, 3.0, 0.2]}
            run.log_samples(
                sample_id=[1, 2, 3, 4], mode=mode, epoch=1, step=step, **columns, margin=[4.0, -1.0, -2.0, 3.0]
            )

    def asked(*arguments: object) -> dict[str, object]:
        status, out, err = xai(arguments[0], tmp_path / "run", "--json", *arguments[1:])
        assert status == 0, err
        return json.loads(out)

    def refused(*arguments: object) -> str:
        status, _, err = xai(arguments[0], tmp_path / "run", *arguments[1:])
        assert status == 2
        return err

    monkeypatch.chdir(tmp_path)
    Path("xai.toml").write_text(
        'metric = ["loss", "margin"]\nno_facts = true\nn = 4\nby = "camera"\nreduce = "max"\n'
        "[confusion]\ntop = 1\nno_facts = false\n[steps]\nspikes = 1\naround = 1\n"
    )
    assert [row["value"] for row in asked("confusion")["by"]] == ["a", "b"]
    assert [row["sample_id"] for row in asked("confusion", "--cell", "cat,dog", "--metric", "loss")["rows"]] == [3]
    assert asked("steps", "--step", 1)["selection"]["step"] == 1
    assert asked("steps")["selection"]["metric"] == asked("findings")["selection"]["metric"] == ["loss"]
    assert {row["sample_id"] for row in asked("samples", "--metric", "margin", "--max", 1, "--min", 0)["rows"]} == {1}
    assert len(asked("select", "--rule", "hardest", "--share", 0.5, "--mode", "eval")["rows"]) == 2
    assert asked("watch", "--once")["rows"]  # one metric alone
    # A variable is nearer than the file, and what is typed nearer than both.
    monkeypatch.setenv("XAI_STEP", "1")
    assert asked("steps")["selection"]["step"] == 1
    assert asked("steps", "--around", 1)["selection"]["around"] == 1
    assert "--top is about the samples of a cell" in refused("confusion", "--top", 5)
    assert "--by is about all cells" in refused("confusion", "--by", "camera", "--cell", "cat,dog")
    assert "--metric takes one here" in refused("watch", "--once", "--metric", "loss,margin")


def test_lists_in_variables_keep_blanks_within_their_values(
    xai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Run(tmp_path / "run") as run:
        columns = {"label": [0, 2, 2, 2], "prediction": [0, 2, 2, 0], "loss": [1.0, 2.0, 3.0, 4.0]}
        run.log_samples(sample_id=[1, 2, 3, 4], mode="eval", epoch=1, **columns)
    monkeypatch.setenv("XAI_RULE", "correct mean >= 0.5")
    status, out, err = xai("check", tmp_path / "run", "--json")
    assert status == 0, err
    assert [(row["rule"], row["value"]) for row in json.loads(out)["rows"]] == [("correct mean >= 0.5", 0.75)]
    monkeypatch.setenv("XAI_LABEL_MAP", "hot dog=2,a cat=0")
    monkeypatch.setenv("XAI_METRIC", "loss,correct")
    status, out, err = xai("labels", tmp_path / "run", "--json")
    assert status == 0, err
    assert {(row["name"], row["metric"]): row["mean"] for row in json.loads(out)["rows"]} == {
        ("hot dog", "loss"): 3.0,
        ("a cat", "loss"): 1.0,
        ("hot dog", "correct"): pytest.approx(2 / 3),
        ("a cat", "correct"): 1.0,
    }


def test_a_setting_of_a_command_must_be_an_option_of_it() -> None:
    assert defaults_of("samples", {"max": False, "metric": True}, {"metric": "loss", "samples": {"max": 2}}) == {
        "metric": ["loss"],
        "max": 2,
    }
    with pytest.raises(UsageError, match=r"samples\.maxi"):
        defaults_of("samples", {"max": False}, {"samples": {"maxi": 2}})


def test_settings_that_are_no_toml_are_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "xai.toml").write_text("max =")
    with pytest.raises(UsageError, match=r"xai\.toml"):
        read_settings(tmp_path)


def test_a_closed_pipe_is_quiet(sample_run: Path) -> None:
    command = f"{sys.executable} -m xaicli samples {sample_run} --json --max 500 | head -c 10 >/dev/null"
    command = ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})
    assert done.stderr == ""
    # As a shell says of any tool whose reader went: neither a success nor a fault.
    assert done.returncode == 141


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "xaicli", "info", str(tmp_path / "none"), "--debug"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_commands_behind_a_group_take_variables_and_settings(tmp_path: Path, monkeypatch) -> None:
    from xaicli.cli import build

    monkeypatch.chdir(tmp_path)
    Path("xai.toml").write_text('[checkpoint.convert]\nto = "pt2"\n')
    convert = build().commands["checkpoint"].commands["convert"]
    assert convert.context_settings["default_map"] == {"to": "pt2"}
    assert "XAI_TO" in {parameter.envvar for parameter in convert.params}


def test_a_missing_extra_is_named(xai, sample_run: Path, monkeypatch) -> None:
    for name in [name for name in sys.modules if name == "torch" or name.startswith(("torch.", "xaicli.attribution"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)  # what Python keeps for a module that cannot be imported
    status, out, err = xai("saliency", sample_run, "--model", "ckpt.pt")
    assert (status, out) == (1, "")
    assert err == "error: xai saliency needs an optional dependency: torch\nhint: pip install 'xaicli[saliency]'\n"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("maxx = 3", "error: no setting 'maxx' in xai.toml\nhint: did you mean max"),
        ("[sample]\nmax = 3", "error: no setting 'sample' in xai.toml\nhint: did you mean samples"),
        ("[samples]\nbounds = 'std'", "error: xai.toml: setting samples.bounds is no option of xai samples"),
        ("max = 'many'", "hint: the value is from xai.toml"),
    ],
)
def test_settings_that_mean_nothing(
    xai, sample_run: Path, tmp_path: Path, monkeypatch, settings: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("xai.toml").write_text(settings)
    status, out, err = xai("samples", sample_run)
    assert (status, out) == (2, "")
    assert message in err


def test_settings_of_other_commands_are_left_to_them(xai, sample_run: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("xai.toml").write_text("bounds = 'range'\n[saliency]\nseed = 3\n[checkpoint.convert]\nto = 'pt2'\n")
    assert xai("samples", sample_run, "--json")[0] == 0


def test_an_interruption_while_loading_is_quiet(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", "from xaicli.__main__ import entry; entry()"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_query_takes_run_and_statement_in_either_order(xai, sample_run: Path) -> None:
    sql = "SELECT count(*) AS n FROM samples"
    answers = [xai("query", *words, "--json") for words in ((sample_run, sql), (sql, sample_run))]
    assert [status for status, _, _ in answers] == [0, 0]
    assert answers[0][1] == answers[1][1]


def test_texts_with_commas_are_lists_in_python_too(sample_run: Path) -> None:
    from xaicli import open_run

    run = open_run(sample_run)
    listed = run.samples(ids="5,10", max=0, min=0).data
    assert listed["sample_id"].to_list() == [5, 10]
    assert run.samples(ids=5, max=0, min=0).data["sample_id"].to_list() == [5]
    assert set(run.labels(bounds="std,range").answer.selection["bounds"]) == {"std", "range"}
    assert set(run.samples(metric="loss, margin", max=1, min=0).data["metric"]) == {"loss", "margin"}


def test_settings_in_utf_16_are_refused_in_words(xai, sample_run: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("xai.toml").write_bytes("max = 3\n".encode("utf-16"))
    status, _, err = xai("samples", sample_run)
    said = "error: xai.toml cannot be read: it is no text in UTF-8\nhint: a settings file is TOML in UTF-8\n"
    assert (status, err) == (2, said)


@pytest.mark.parametrize("content", [b"not = [ toml", b'description = "K\xe4se"', b"[tool]\nxai = 5\n", b"tool = 5\n"])
def test_a_project_of_others_stops_nobody(xai, sample_run: Path, tmp_path: Path, monkeypatch, content: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pyproject.toml").write_bytes(content)
    assert xai("--version") == (0, f"xai {__version__}\n", "")
    assert xai("--help")[0] == 0
    status, out, err = xai("samples", sample_run, "--json")
    if b"xai" in content:
        assert (status, err.startswith("error: pyproject.toml: tool.xai is no table")) == (2, True)
    else:
        assert status == 0
        assert json.loads(out)["rows"]
        assert ("pyproject.toml cannot be read" in err) == (content != b"tool = 5\n")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("samples = 5", "error: xai.toml: setting samples = 5 is no table"),
        ("[samples]\nmax = [1, 2]", "error: xai.toml: setting max = [1, 2] is a list"),
        ("metric = [{a = 1}]", "error: xai.toml: setting metric = [{'a': 1}] is a list"),
    ],
)
def test_settings_of_another_kind(xai, sample_run: Path, tmp_path: Path, monkeypatch, settings: str, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("xai.toml").write_text(settings)
    status, out, err = xai("samples", sample_run)
    assert (status, out) == (2, "")
    assert err.startswith(said)
    assert xai("--version")[0] == 0


@pytest.mark.parametrize(("value", "shown"), [("0", False), ("false", False), ("", False), ("1", True)])
def test_the_variable_of_tracebacks(tmp_path: Path, value: str, shown: bool) -> None:
    command = [sys.executable, "-m", "xaicli", "info", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "XAI_DEBUG": value})
    assert ("Traceback" in done.stderr) is shown


def test_a_full_output_is_no_fault_of_ours(sample_run: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "xaicli", "samples", str(sample_run), "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("error: the output: No space left on device\nhint: ")
    assert "Exception" not in done.stderr


def test_the_list_of_commands_is_whole_at_80_columns() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "xaicli", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "80", "TERM": "dumb"},
    )
    assert "..." not in done.stdout.partition("Commands:")[2]
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_standard_output_is_no_folder(xai, sample_run: Path) -> None:
    status, out, err = xai("samples", sample_run, "--json", "-o", "-")
    assert (status, out) == (2, "")
    assert err.startswith("error: -o - is no folder")


def test_the_module_may_run_several_times_in_one_process(sample_run: Path) -> None:
    code = (
        "import runpy, sys\n"
        "before = sys.path[1:]\n"
        "for _ in range(3):\n"
        "    sys.argv = ['xai', 'info', sys.argv[-1]]\n"
        "    try:\n"
        "        runpy.run_module('xaicli', run_name='__main__', alter_sys=True)\n"
        "    except SystemExit as error:\n"
        "        assert not error.code\n"
        "assert sys.path == before, sys.path\n"
        "print('went on')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(sample_run)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("went on\n")


@pytest.mark.parametrize("group", ["relabel", "checkpoint"])
def test_what_commands_behind_a_group_do_is_said_whole(xai, group: str) -> None:
    _, out, _ = xai(group, "--help")
    commands = out.partition("Commands:")[2].rstrip()
    assert "..." not in commands
    assert commands.endswith(".")


@pytest.mark.parametrize("forged", ["error: all is lost", "hint: rm -rf /"])
def test_a_name_with_a_line_break_forges_no_line(xai, tmp_path: Path, forged: str) -> None:
    with Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[f"a\n{forged}", "b"], loss=[1.0, 2.0], mode="eval", epoch=1)
    status, _, err = xai("samples", tmp_path / "run", "--ids", "c")
    assert status != 0
    assert forged in err
    assert not any(line.startswith(forged) for line in err.splitlines())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("smoothing = 2", ("scalars",)),
        ("rule = ['loss mean <= 40']", ("select", "--rule", "random", "--n", "2")),
        ("rule = ['loss mean <= 40']", ("relabel", "export")),
        ("rule = 'loss mean by label <= 40'", ("relabel", "export")),
        ("rule = 'hardest'", ("relabel", "export")),
        ("rule = 'hardest'", ("check", "--rules", "RULES")),
        ("baseline = 'zero'", ("check", "--rules", "RULES")),
        ("format = 'parquet'", ("samples",)),
        ("format = 'html'", ("export",)),
        ("by = ['label', 'prediction']", ("confusion",)),
        ("group = ['x=nosuch']", ("scalars",)),
        ("group = ['x=*']", ("compare", "RUN")),
        ("group = ['x=*run', 'y=other']", ("compare", "RUN")),
        ("mode = 'eval'", ("scalars",)),
        ("step = 270", ("steps", "--mode", "eval")),
        ("epoch = 1", ("steps", "--step", "270")),
        ("epoch_frequency = 5", ("steps", "--step", "270")),
    ],
)
def test_a_default_that_another_command_takes_is_passed_over(
    xai, sample_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rules.toml").write_text('[[rule]]\nmetric = "loss"\nmost = 40.0\n')
    at = 2 if words[0] == "relabel" else 1
    if "RUN" in words:
        shutil.copytree(sample_run, "other")
    named = {"RULES": "rules.toml", "RUN": "other"}
    given = (*words[:at], sample_run, *(named.get(word, word) for word in words[at:]))
    assert xai(*given, "-o", tmp_path / "out")[0] == 0
    Path("xai.toml").write_text(settings)
    status, _, err = xai(*given, "-o", tmp_path / "out")
    assert status == 0, err


@pytest.mark.parametrize(
    ("settings", "words", "said"),
    [
        ("format = 'nosuch'", ("samples",), "--format is from xai.toml"),
        ("mode = 'nosuch'", ("samples",), "--mode is from xai.toml"),
        ("smoothing = 5.5", ("scalars",), "--smoothing is from xai.toml"),
        ("max = [1, 2]", ("samples",), "--max takes one value"),
        ("[samples]\nformat = 'parquet'", ("samples",), "--format is from xai.toml"),
    ],
)
def test_a_default_that_no_command_takes_is_refused_by_name_and_file(
    xai, sample_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str, words: tuple[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("xai.toml").write_text(settings)
    status, _, err = xai(*words, sample_run)
    assert status in (1, 2)
    assert said in err
    assert "xai.toml" in err
    name = settings.split()[0]
    if settings.startswith("mode"):
        Path("xai.toml").unlink()
        monkeypatch.setenv(f"XAI_{name.upper()}", "nosuch")
        assert "--mode is from XAI_MODE" in xai(*words, sample_run)[2]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("group = ['x=a*', 'y=b*', 'z=nosuch']", "--group z=nosuch matches no run"),
        ("group = ['x=a*', 'y=b1']", "--group y is one run alone"),
        ("[compare]\ngroup = ['x=a*']", "--group compares two groups or more"),
    ],
)
def test_groups_of_a_default_are_all_compared_or_the_error_says_where_they_are_from(
    xai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = ("a1", "a2", "b1", "b2")
    for number, name in enumerate(runs):
        with Run(name) as run:
            run.log_samples(sample_id=[1, 2, 3], loss=[1.0, 2.0, 3.0 + number], mode="eval", epoch=1)
    Path("xai.toml").write_text("group = ['x=a*', 'y=b*']")
    status, out, _ = xai("compare", *runs, "--json")
    assert (status, json.loads(out)["selection"]["group"]) == (0, {"x": ["a1", "a2"], "y": ["b1", "b2"]})
    Path("xai.toml").write_text(settings)
    status, _, err = xai("compare", *runs)
    assert status == 2
    assert said in err
    assert "--group is from xai.toml" in err


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("label_map", "c=zebra", ("labels",)),
        ("epoch", "99", ("labels",)),
        ("epoch_frequency", "77", ("compare", "RUN")),
        ("cell", "zebra,1", ("confusion",)),
        ("truth", "nope", ("dynamics",)),
        ("facts", "/no.csv", ("labels",)),
        ("ids", "@nofile", ("samples",)),
        ("baseline", "/nope", ("check", "--rule", "loss mean < 9")),
        ("step", "9999", ("steps",)),
        ("step", "9999", ("steps", "--epoch", "first")),
        ("around", "9999", ("steps",)),
        ("mode", "infer", ("scalars",)),
        ("mode", "!train,!eval", ("samples",)),
        ("group", "x=nosuch", ("scalars", "RUN")),
    ],
)
@pytest.mark.parametrize("place", ["xai.toml", "variable"])
def test_an_error_about_a_name_that_is_not_there_says_where_the_name_is_from(
    xai,
    sample_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    words: tuple[str, ...],
    place: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    option = f"--{name.replace('_', '-')}"
    shutil.copytree(sample_run, "other")
    asked = (words[0], sample_run, *("other" if word == "RUN" else word for word in words[1:]))
    status, _, typed = xai(*asked, option, value)
    assert status in (1, 2)
    assert "is from" not in typed
    if place == "variable":
        monkeypatch.setenv(f"XAI_{name.upper()}", value)
    else:
        Path("xai.toml").write_text(f'{name} = "{value}"\n')
    status, _, err = xai(*asked)
    where = f"XAI_{name.upper()}" if place == "variable" else "xai.toml"
    assert status in (1, 2)
    assert f"{option} is from {where}" in err


def test_an_error_about_two_defaults_names_both_and_one_about_something_else_none(
    xai, sample_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("xai.toml").write_text('epoch = "first"\nepoch_frequency = 77\nmax = 9\n')
    _, _, err = xai("samples", sample_run)
    assert [f"--{name} is from xai.toml" in err for name in ("epoch", "epoch-frequency", "max")] == [True, True, False]
    Path("xai.toml").write_text('stat = "last"\nmode = "eval"\nmax = 99\nmetric = "loss"\n')
    assert "is from" not in xai("samples", sample_run, "--epoch", "99")[2]
