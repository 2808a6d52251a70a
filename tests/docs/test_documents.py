"""The documents are true: their code and commands run, the options they name exist, their links lead somewhere."""

from __future__ import annotations

import functools
import json
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import xaicli
from xaicli.cli import COMMANDS, build, main
from xaicli.cli.settings import defaults_of, read_settings
from xaicli.dynamics.findings import Finding

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
WRITTEN = [path for path in DOCUMENTS if path.name != "commands.md"]  # that one is made from the help

OPTIONAL = {"lightning", "transformers"}
NOT_RUN = {"python3 -m venv .venv", ".venv/bin/xai demo"}  # the tests have an environment; test_demo.py runs the demo


def blocks(path: Path) -> Iterator[tuple[str, str]]:
    """The code of a document in its order: ("python", a fenced block) or ("shell", an indented line)."""
    fence = None
    lines: list[str] = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line.startswith("```"):
            if fence == "python":
                yield "python", "\n".join(lines)
            fence, lines = (line[3:] or "text", []) if fence is None else (None, [])
        elif fence:
            lines.append(line)
        elif line.startswith("    "):
            yield "shell", line.strip()


def run_shell(line: str) -> None:
    """Run a command line of ours; of the others, check what can be checked without the network."""
    words = shlex.split(line, comments=True)
    if words[0] == "xai":
        assert main(words[1:]) == 0, line
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), line
    elif words[0].endswith("pip"):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        for extra in re.findall(r"\[(\w+)\]", line):
            assert extra in project["optional-dependencies"], line
    else:
        assert line in NOT_RUN


@pytest.mark.parametrize("path", [path for path in WRITTEN if list(blocks(path))], ids=lambda path: path.name)
def test_the_code_runs_in_its_order(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder with the run that `xai demo` makes."""
    monkeypatch.chdir(tmp_path)
    for package in OPTIONAL & {path.stem} | ({"accelerate"} if path.stem == "recipes" else set()):
        pytest.importorskip(package, reason=f"{package} is not installed")
    shutil.copytree(ROOT / "sample_data" / "run", "runs/demo")
    names: dict[str, object] = {}
    for number, (kind, code) in enumerate(blocks(path), start=1):
        if kind == "python":
            exec(compile(code, f"{path.name}, block {number}", "exec"), names)
        else:
            run_shell(code)


@functools.cache
def options_of(name: str) -> set[str]:
    command = build([name]).commands[name]
    commands = [command, *getattr(command, "commands", {}).values()]
    return {
        option for each in commands for parameter in each.params for option in parameter.opts + parameter.secondary_opts
    }


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_every_command_and_option_named_exists(path: Path) -> None:
    names = {name.replace("_", "-") for name in COMMANDS}
    every = {"--install-completion", "--version", "--help", *(option for name in names for option in options_of(name))}
    for code in re.findall(r"`([^`\n]+)`", path.read_text(encoding="utf-8")):
        named = re.match(r"xai ([a-z][a-z-]+)", code)
        assert named is None or named[1] in names, code
        known = options_of(named[1]) if named else every
        given = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", code))
        assert given <= known or code.startswith(("torchrun", "pip", "make")), code


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_to_a_file_leads_somewhere(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_every_file_that_contributing_names_exists() -> None:
    named = re.findall(r"`([\w/]+(?:\.(?:py|md|toml|txt)|/))`", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert [name for name in named if not ((ROOT / name).exists() or (ROOT / "xaicli" / name).exists())] == []


def test_every_public_name_is_documented() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in WRITTEN)
    public = [name for name in xaicli.__all__ if not name.startswith("_")]
    assert [name for name in public if not re.search(rf"\b{name}\b", text)] == []


def test_every_document_can_be_reached_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in DOCUMENTS[1:] if f"{path.relative_to(ROOT)})" not in readme] == []


def test_the_settings_shown_are_read(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text(re.search(r"```toml\n(.*?)```", page, re.DOTALL)[1], encoding="utf-8")
    settings, _ = read_settings(tmp_path)
    assert defaults_of("samples", {"metric": True, "max": False}, settings) == {"metric": ["loss", "margin"], "max": 10}
    assert defaults_of("labels", {"metric": True, "max": False}, settings) == {"metric": ["loss", "margin"]}


def test_the_page_of_commands_is_the_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # no settings file of the user's
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import make_commands  # type: ignore[import-not-found]

    assert (ROOT / "docs" / "commands.md").read_text(encoding="utf-8") == make_commands.markdown(), "run: make docs"
    assert (ROOT / "docs" / "xai.1").read_text(encoding="utf-8") == make_commands.man_page(), "run: make docs"


DEMO = str(ROOT / "sample_data" / "run")
ASKED = {
    "info": [[DEMO]],
    "samples": [[DEMO]],
    "labels": [[DEMO, "--bounds", "std,range"]],
    "dynamics": [[DEMO, "--metric", "loss"]],
    "findings": [[DEMO]],
    "scalars": [[DEMO]],
    "confusion": [[DEMO], [DEMO, "--by", "label"]],
    "steps": [[DEMO, "--mode", "train"], [DEMO, "--mode", "train", "--step", "30"]],
    "slices": [[DEMO, "--by", "label,prediction", "--mode", "train"]],
    "select": [[DEMO, "--rule", "hardest", "--n", "5"]],
    "relabel export": [[DEMO, "--mode", "train", "--rule", "suspects", "--n", "3"]],
    "relabel apply": [[DEMO, "SAID", "--mode", "train"]],
    "check": [[DEMO, "--rule", "correct mean >= 0.5"]],
    "compare": [[DEMO, DEMO]],
    "track-report": [[DEMO]],
    "ls": [[DEMO]],
    "watch": [[DEMO, "--once"]],
    "query": [["SELECT count(*) AS rows FROM samples", DEMO]],
    "export": [[DEMO, "--format", "csv"]],
    "doctor": [[DEMO]],
    "saliency": [
        ["COPY", "--samples", "1", "--methods", "gradient", "--model", "CHECKPOINT", "--model", "SECOND"],
        ["COPY", "--samples", "1", "--methods", "gradient", "--evaluate", "--sanity"],
    ],
    "collect": [["COPY", "--collectors", "classification,embeddings", "--layers", "8"]],
    "embeddings": [["COPY"]],
    "compact": [["COPY"]],
    "sync": [["COPY", "file://FOLDER"]],
    "import": [["SAID", "-o", "FOLDER/imported"]],
    "checkpoint inspect": [["CHECKPOINT"]],
    "checkpoint convert": [["CHECKPOINT", "--to", "safetensors", "-o", "FOLDER/weights.safetensors"]],
}
BEFORE = {"embeddings": ["collect", *ASKED["collect"][0]]}
NAMED_BY_DATA = {"found", "bounds", "scalars", "facts", "label_map", "operators", "methods", "similarity"}
"""What they hold has names of the run's own."""


def keys_of(value: object) -> Iterator[str]:
    match value:
        case dict():
            for key, below in value.items():
                yield key
                is_named = key in NAMED_BY_DATA and isinstance(below, dict)
                yield from keys_of(list(below.values()) if is_named else below)
        case list():
            for below in value:
                yield from keys_of(below)


@functools.cache
def commands_with(option: str) -> frozenset[str]:
    """The commands that take an option, `relabel export` for one of a group."""
    found = set()
    for name in (name.replace("_", "-") for name in COMMANDS):
        command = build([name]).commands[name]
        below = getattr(command, "commands", None)
        for title, each in {f"{name} {sub}": one for sub, one in below.items()}.items() if below else [(name, command)]:
            if any(option in parameter.opts for parameter in each.params):
                found.add(title)
    return frozenset(found)


def documented(text: str) -> set[str]:
    return {word for code in re.findall(r"`([^`]+)`", text) for word in code.split(", ")}


@pytest.mark.parametrize("name", ASKED)
def test_every_key_of_the_json_is_documented_and_every_key_documented_is_there(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the keys documented, those of a table's first column; what lists hold may have nothing of it in the demo."""
    page = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
    common, *sections = re.split(r"^## xai ", page, flags=re.MULTILINE)
    by_name = {section.partition("\n")[0]: section.partition("\n### ")[0] for section in sections}
    assert set(by_name) == {*ASKED, "errors"} == commands_with("--json")
    monkeypatch.chdir(tmp_path)  # what names no folder of its own is written here
    copy = tmp_path / "copy"
    if any("COPY" in arguments or "CHECKPOINT" in arguments for arguments in ASKED[name]):
        shutil.copytree(DEMO, copy)
        shutil.copy(copy / "checkpoints" / "ckpt.pt", tmp_path / "second.pt")
    meant = {
        "SECOND": str(tmp_path / "second.pt"),
        "COPY": str(copy),
        "CHECKPOINT": str(copy / "checkpoints" / "ckpt.pt"),
        "SAID": str(tmp_path / "said.csv"),
    }

    def typed(arguments: list[str]) -> list[str]:
        return [meant.get(word, word.replace("FOLDER", str(tmp_path))) for word in arguments]

    seen: set[str] = set()
    top: set[str] = set()
    said = tmp_path / "said.csv"
    said.write_text("sample_id,label,by\n1,3,ann\n2,seven,ann\n3,unheard of,ann\n", encoding="utf-8")
    if name in BEFORE:
        assert main(typed(BEFORE[name])) == 0
        capsys.readouterr()
    for arguments in ASKED[name]:
        output = ["-o", str(tmp_path)] if name in commands_with("-o") and "-o" not in arguments else []
        main([*name.split(), *typed(arguments), "--json", *output])
        answer = json.loads(capsys.readouterr().out)
        top |= set(answer)
        seen |= set(keys_of(answer))
    every = by_name[name] + (by_name["samples"] + by_name["labels"] + by_name["confusion"] + by_name["findings"]
        if name == "track-report" else "")  # fmt: skip
    assert seen - documented(common) - documented(every) == set()
    first = {key for row in re.findall(r"^\| (`.*?) \|", by_name[name], re.MULTILINE) for key in documented(row)}
    assert first - top == set()


def test_every_key_of_the_errors_of_objects_is_documented(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
    (section,) = [part for part in re.split(r"^## ", page, flags=re.MULTILINE) if part.startswith("xai errors\n")]
    truth = [{"boxes": [[0, 0, 10, 10]], "labels": [0]}, {"boxes": [[0, 0, 10, 8]], "labels": [1]}]
    said = [{"boxes": [[0, 0, 10, 8]], "labels": [0], "scores": [0.9]}] * 2
    with xaicli.Run(tmp_path, label_names=["cat", "dog"]) as run:
        run.log_facts([0, 1], camera=["left", "right"])
        for _ in run.epochs(2):
            xaicli.collect_metrics(
                xaicli.Table(list(enumerate(truth))),
                xaicli.BoundingBoxMetricsCollector(["cat", "dog"]),
                lambda numbers: [said[int(number)] for number in numbers],
                run=run,
                split="val",
                dataloader_args={"batch_size": 2, "collate_fn": lambda rows: tuple(zip(*rows, strict=True))},
            )
    answer = json.loads(xaicli.open_run(tmp_path).errors().to_json())
    assert answer["task"] == "objects"
    assert {one["doubt"] for one in answer["suspects"]} == {"other_class"}
    common = page.partition("## xai")[0]
    assert set(keys_of(answer)) - documented(common) - documented(section) == set()


ERRORS = {
    "regression": {"label": [0.5, 1.5, 2.5], "prediction": [0.25, 2.0, 0.5]},
    "binary": {"label": [0, 1, 1], "logits": [0.5, -0.5, 1.5]},
    "multilabel": {"label": [[0], [0, 1], []], "probs": [[0.1, 0.9, 0.2], [0.9, 0.8, 0.1], [0.9, 0.9, 0.9]]},
    "sequence": {"label": [[1, 0], [0, 1], [1, 1]], "logits": [[[0.5, 1.5], [1.0, 0.0]]] * 3},
}
"""What is logged of six samples at each of three epochs, twice the three given."""


@pytest.mark.parametrize("task", ERRORS)
def test_every_key_of_the_errors_of_a_task_is_documented(task: str, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
    (section,) = [part for part in re.split(r"^## ", page, flags=re.MULTILINE) if part.startswith("xai errors\n")]
    ids = list(range(6))
    with xaicli.Run(tmp_path, task=task, keep_tokens=task == "sequence") as run:
        run.log_facts(ids, camera=["a", "b"] * 3, **({"tokens": ["so it"] * 6} if task == "sequence" else {}))
        for epoch in (1, 2, 3):
            given = {name: np.array(values * 2) for name, values in ERRORS[task].items() if name != "label"}
            run.log_samples(sample_id=ids, mode="eval", epoch=epoch, label=ERRORS[task]["label"] * 2, **given)
    answer = json.loads(xaicli.open_run(tmp_path).errors().to_json())
    answer["selection"] = {}
    assert answer["task"] == task
    common = page.partition("## xai")[0]
    assert set(keys_of(answer)) - documented(common) - documented(section) == set()


def test_every_kind_of_finding_is_documented() -> None:
    named = documented((ROOT / "docs" / "json.md").read_text(encoding="utf-8"))
    assert {str(kind) for kind in Finding} - named == set()


def test_every_statistic_that_can_be_a_score_has_its_formula() -> None:
    """What `--stat` takes is what the dynamics of the run hold, by the names of its own error."""
    page = (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8")
    run = xaicli.open_run(DEMO)
    columns = [name.removeprefix("loss_") for name in run.dynamics(metric="loss").data.columns]
    taken = []
    for name in columns:
        try:
            run.samples(stat=name, max=1, min=0)
        except xaicli.XaiError:
            continue
        taken.append(name)
    assert {"mean", "slope", "confidence", "aum", "rank_jump"} < set(taken)
    assert [name for name in taken if not re.search(rf"`(<metric>)?_?{name}`", page)] == []


def test_the_workflow_and_the_hook_of_the_check_run_with_the_rules_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two runs that keep the rules, and a third that falls behind the second by more than they allow."""
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "checking.md").read_text(encoding="utf-8")
    (rules,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    Path("rules.toml").write_text(rules, encoding="utf-8")
    Path("golden.txt").write_text("0\n1\n", encoding="utf-8")
    labels = np.arange(400) % 4
    for name, n_wrong in (("released", 0), ("new", 0), ("behind", 36)):
        wrong = np.isin(np.arange(400), np.arange(400)[labels == 1][1 : n_wrong + 1])
        answers = np.where(wrong, 2, labels)
        with xaicli.Run(f"runs/{name}", label_names=["cat", "dog", "eel", "fox"]) as run:
            run.log_facts(range(400), camera=["rear", "front"] * 200)
            for mode in ("eval", "test"):
                logits = 5 * np.eye(4, dtype=np.float32)[answers]
                run.log_samples(sample_id=range(400), label=labels, logits=logits, mode=mode, epoch=1)
    lines = [line.strip() for line in re.findall(r"(?:run|entry): (xai check .*)", text)]
    assert len(lines) == 2
    for line in lines:
        assert main(shlex.split(line)[1:]) == 0, capsys.readouterr()
        assert main(shlex.split(line.replace("runs/new", "runs/behind"))[1:]) == 1, capsys.readouterr()
    assert Path("checked/check.md").is_file()
    assert Path("check.xml").is_file()
