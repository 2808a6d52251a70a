"""*How this was made*: the command on a page asks the same question again."""

from __future__ import annotations

import html
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

import xaicli
from xaicli import answer as answers
from xaicli.answer import Answer
from xaicli.api import compare, open_run, scalars
from xaicli.cli import build
from xaicli.report.page import made

Xai = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (
            "samples",
            {"max": 2, "min": 0, "ids": [5, 10], "stat": "mean", "mode": ["train", "eval"]},
        ),
        ("samples", {"complete_only": True, "epoch": ["2-4", "6"], "duplicates": "all"}),
        ("labels", {"bounds": ["std", "range"], "label_map": {"a cat": 3, "b": 5}, "epoch_frequency": 2}),
        ("dynamics", {"early_epochs": 3, "burn_in": 1}),
    ],
)
def test_the_command_on_the_page_asks_the_same(
    xai: Xai, sample_run: Path, tmp_path: Path, command: str, options: dict[str, object]
) -> None:
    result = getattr(open_run(sample_run), command)(**options)
    line = shlex.split(dict(result.report.made)["command"])
    assert line[:2] == ["xai", command]
    status, out, err = xai(*line[1:], "--json", "--format", "csv", "-o", tmp_path)
    assert status == 0, err
    again, first = json.loads(out), json.loads(result.to_json())
    assert again["rows"] == first["rows"]
    assert again["selection"] == first["selection"]


def again(xai: Xai, line: str, out_dir: Path) -> dict[str, object]:
    status, out, err = xai(*shlex.split(line)[1:], "--json", "--format", "csv", "-o", out_dir)
    assert status == 0, err
    return json.loads(out)  # type: ignore[no-any-return]


def test_other_pages_ask_the_same_too(xai: Xai, sample_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "a copy, elsewhere"
    shutil.copytree(sample_run, copy)
    run = open_run(sample_run)
    for result in (
        run.report(max=2, bounds="range"),
        run.findings(top=3),
        run.scalars(smoothing=0.5),
        run.query("SELECT label, count(*) AS n FROM samples GROUP BY label ORDER BY label"),
        compare(sample_run, copy, max=2),
        scalars(sample_run, copy),
    ):
        found = again(xai, dict(result.report.made)["command"], tmp_path / "out")
        first = json.loads(result.to_json())
        assert (found["rows"], found["selection"]) == (first["rows"], first["selection"])


def test_the_page_of_maps_asks_for_the_same_maps(xai: Xai, sample_run: Path, tmp_path: Path) -> None:
    options = ["--samples", "2", "--pick", "worst", "--methods", "gradient,integrated", "--integrating", "4,0"]
    options += ["--evaluate", "--precision", "fp32", "--task", "classification"]
    status, out, err = xai("saliency", sample_run, *options, "--no-progress", "--json", "-o", tmp_path)
    assert status == 0, err
    page = (tmp_path / "saliency.html").read_text()
    line = html.unescape(re.search(r"xai saliency [^<]+", page)[0])  # type: ignore[index]
    found = again(xai, f"{line} --no-progress", tmp_path / "out")
    assert found["rows"] == json.loads(out)["rows"]
    assert {"insertion", "infidelity"} <= found["rows"][0]["methods"]["gradient"].keys()


def test_the_page_of_a_collection_names_every_option(xai: Xai, sample_run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(sample_run, tmp_path / "run"))
    data = Path(__file__).parents[2] / "sample_data" / "digits.parquet"
    named = ["--collectors", "classification,embeddings", "--layers", "7", "--reduction", "none", "--probs"]
    named += ["--task", "classification", "--split", "val", "--batch-size", "512", "--no-aggregates"]
    question = ["collect", copy, "--data", data, "--model", "ckpt.pt", *named, "--format", "html", "-o", tmp_path]
    status, _, err = xai(*question)
    assert status == 0, err
    (page,) = tmp_path.glob("*.html")
    words = shlex.split(html.unescape(re.search(r"xai collect [^<]+", page.read_text())[0]))  # type: ignore[index]
    given = {name: value for name, value in zip(named, [*named[1:], ""], strict=True) if name.startswith("--")}
    for name, value in given.items():
        assert name in words
        assert value.startswith("--") or not value or words[words.index(name) + 1] == value
    # The run is the one argument: what was written is no part of the question.
    assert [word for word in words[2:4] if not word.startswith("--")] == [str(copy)]


def test_the_page_of_the_upkeep_says_its_options_and_no_count_as_an_argument(xai: Xai, tmp_path: Path) -> None:
    with xaicli.Run(tmp_path / "run") as run:
        run.log_samples(sample_id=[1, 2], loss=[0.5, 1.0], mode="eval", epoch=1)
    for command, option in (("doctor", ["--quarantine"]), ("compact", ["--grace", "30.0"])):
        status, _, err = xai(command, tmp_path / "run", *option, "--format", "html", "-o", tmp_path)
        assert status == 0, err
        page = (tmp_path / f"{command}.html").read_text()
        line = html.unescape(re.search(rf"xai {command} [^<]+", page)[0])  # type: ignore[index]
        assert shlex.split(line) == ["xai", command, str(tmp_path / "run"), *option]


def test_maps_of_a_module_have_no_command() -> None:
    torch = pytest.importorskip("torch")
    result = xaicli.saliency(torch.nn.Linear(3, 2), torch.ones(1, 3), methods="gradient")
    assert "command" not in dict(result.report.made)


def test_every_option_named_is_one() -> None:
    commands = [one for each in build().commands.values() for one in (each, *getattr(each, "commands", {}).values())]
    assert {parameter.name for command in commands for parameter in command.params} >= answers._OPTIONS


def test_epochs_are_ranges_and_words_are_quoted() -> None:
    selection = {"epoch": [1, 2, 3, 5, 8, 9], "label_map": {"a cat": 3}, "ds_id": [""], "starts": 2, "signed": False}
    answer = Answer("labels", "my run", selection, pl.DataFrame())
    assert answer.command_line() == "xai labels 'my run' --epoch 1-3,5,8-9 --label-map 'a cat=3'"


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ids, labels, metrics and data sets whose names hold what a list or a shell would take apart."""
    path = tmp_path_factory.mktemp("odd") / "a run, with 'quotes'"
    labels = ["a,b", 'say "hi"', "key=val"]
    with xaicli.Run(path) as run:
        for epoch in (1, 2, 5):
            for number, ds_id in enumerate(("", "night, wet", "all")):
                values = [((7 * i + 3 * epoch + number) % 11) / 4 for i in range(12)]
                run.log_samples(
                    sample_id=[f"@im/{i},x|{i}" for i in range(12)],
                    label=[labels[i % 3] for i in range(12)],
                    loss=values,
                    mode="eval",
                    ds_id=ds_id,
                    epoch=epoch,
                    step=epoch,
                    **{"a,c": values[::-1]},
                )
    return path


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("samples", {"ds_id": ["!night, wet"]}),
        ("samples", {"ds_id": [""]}),
        ("samples", {"ds_id": ["all"]}),
        ("samples", {"ids": ["@im/3,x|3"], "max": 0, "min": 0}),
        ("samples", {"metric": ["a,c", "loss"], "max": 2}),
        ("samples", {"where": "loss > 1 AND label <> 'a,b'", "epoch": "1-2"}),
        ("labels", {"label_map": {"x,y": "a,b", "q=r": "key=val", 'w"': 'say "hi"'}}),
        ("labels", {"axis": "step", "bounds": ["range", "ci"]}),
        ("dynamics", {"where": "epoch < 5", "metric": ["a,c"]}),
        ("dynamics", {"ds_id": ["night, wet"], "burn_in": 1}),
    ],
)
def test_odd_values_come_back(xai: Xai, odd: Path, tmp_path: Path, command: str, options: dict[str, object]) -> None:
    result = getattr(open_run(odd), command)(**options)
    found = again(xai, dict(result.report.made)["command"], tmp_path / "out")
    first = json.loads(result.to_json())
    assert first["rows"]
    assert (found["rows"], found["selection"]) == (first["rows"], first["selection"])


def test_a_group_of_runs_comes_back(xai: Xai, tmp_path: Path) -> None:
    for name in ("a, 1", "b"):
        with xaicli.Run(tmp_path / name) as run:
            run.log({"step": 1, "lr": 0.5})
    result = scalars(tmp_path / "a, 1", tmp_path / "b", group={"both": ["a, 1", "b"]}, smoothing=0.5)
    found = again(xai, dict(result.report.made)["command"], tmp_path / "out")
    assert found["rows"] == json.loads(result.to_json())["rows"]


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels and a fact with line breaks, tabs, characters that nobody sees, quotes and backslashes."""
    path = tmp_path_factory.mktemp("hidden") / "run"
    texts = ["l1\nl2", "a\tb", "c\u200bd", "it's \\n"]
    with xaicli.Run(path, label_names=["x\ny", "z"]) as run:
        run.log_facts(range(12), text=[texts[i % 4] for i in range(12)])
        for epoch in (1, 2):
            columns = {"label": [i % 2 for i in range(12)], "prediction": [i % 3 % 2 for i in range(12)]}
            run.log_samples(sample_id=range(12), **columns, loss=[i / 2 for i in range(12)], mode="eval", epoch=epoch)
    return path


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize(
    "question",
    [
        ("samples", "--where", "loss > 1 -- the hard ones\nAND sample_id < 8"),
        ("samples", "--where", "text = 'l1\nl2'"),
        ("samples", "--where", "text IN ('a\tb', 'c\u200bd', 'it''s \\n')"),
        ("labels", "--where", "loss > 1 -- the hard ones\nAND sample_id < 8", "--label-map", "a=x\ny"),
        ("confusion", "--where", "loss > 1 -- the hard ones\nAND text <> 'a\tb'"),
        ("select", "--rule", "loss > 1 -- the hard ones\nAND sample_id < 8"),
        ("query", "SELECT sample_id FROM samples -- all of them\nWHERE loss > 4 ORDER BY epoch, sample_id"),
    ],
)
def test_a_command_with_hidden_characters_is_copied_from_a_page_as_it_was(
    xai: Xai, hidden: Path, tmp_path: Path, question: tuple[str, ...]
) -> None:
    command, *words = question
    status, _, err = xai(command, hidden, *words, "--format", "md,html,json", "-o", tmp_path)
    assert status == 0, err
    (md,), (page,), (answered,) = (list(tmp_path.glob(f"*.{kind}")) for kind in ("md", "html", "json"))
    first = json.loads(answered.read_text())
    assert first["rows"]
    span = re.search(r"^- command: (`+) ?(xai .*?) ?\1$", md.read_text(), re.M)
    shown = re.search(r'<dd class="command">(.*?)</dd>', page.read_text(), re.S)
    assert span is not None
    assert shown is not None
    for line in (span[2], html.unescape(shown[1])):
        split = subprocess.run(
            ["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True
        ).stdout.decode()
        status, out, err = xai(*split.split("\0")[1:-1], "--json", "--format", "csv", "-o", tmp_path / "again")
        assert status == 0, err
        assert json.loads(out)["rows"] == first["rows"]
    assert re.findall(r"^- (?:where|rule): .* the hard ones<br>AND", md.read_text(), re.M) or "ones" not in words[-1]


@pytest.mark.parametrize(("given", "said"), [(False, "no"), (True, "yes"), ([False, 3], "no, 3")])
def test_truth_values_are_said_in_words(given: object, said: str) -> None:
    answer = Answer("samples", "runs/a", {"complete_only": given}, pl.DataFrame(), answers.Counts())
    assert dict(made(answer))["complete only"] == said
