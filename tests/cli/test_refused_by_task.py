"""What commands say of runs of every task: none asks to log what the run has, or what its task never has."""

import re
import shlex
from xml.etree import ElementTree

import numpy as np
import pytest

import xaicli
from xaicli.cli import main
from xaicli.errors import XaiError

N, CLASSES, TOKENS = 24, 3, 5
TASKS = ("classification", "binary", "multilabel", "regression", "sequence")
RULES = ("suspects", "label_issues", "balanced", "forgotten", "ambiguous")
DEMANDS = (
    *("loss mean", "correct mean", "ece", "label_prob mean", "margin mean", "token_accuracy mean", "jaccard mean"),
    *("abs_error mean", "spikes", "loss mean by label", "loss mean by prediction", "loss mean by source"),
)
QUESTIONS = (
    *(f"samples --max 1 --stat {stat}" for stat in ("aum", "confidence", "forgetting")),
    *("samples --max 1 --metric correct", "labels", "labels --label-key prediction", "confusion", "errors"),
    *("dynamics", "dynamics --truth truth.csv", "dynamics --truth wrong.csv", "findings", "slices --by label"),
    *(f"select --rule {rule} --n 3" for rule in RULES),
    "select --rule hardest --per-label --n 2",
    "check --rule 'no sample of ids.txt is wrong' " + " ".join(f"--rule '{demand} <= 9'" for demand in DEMANDS),
    *(f"relabel export --rule hardest --n 2 --to {to}" for to in ("label-studio", "coco")),
    "relabel apply truth.csv",
)


def logged(task, what):
    """A batch of a task: what is given of "label", "logits", "prediction" and "loss"."""
    draw = np.random.default_rng(3)
    wide = {
        "classification": (draw.integers(0, CLASSES, N), (N, CLASSES)),
        "binary": (draw.integers(0, 2, N), (N,)),
        "multilabel": (draw.integers(0, 2, (N, CLASSES)), (N, CLASSES)),
        "regression": (draw.normal(size=N), (N,)),
        "sequence": (draw.integers(0, CLASSES, (N, TOKENS)), (N, TOKENS, CLASSES)),
    }
    label, shape = wide[task]
    given = {"label": label, "logits": draw.normal(size=shape), "loss": draw.uniform(1, 2, N)}
    return {name: given[name] for name in what}


def recorded(folder, task, what, **more):
    with xaicli.Run(folder / "run", task=task, **more) as run:
        run.log_facts(np.arange(N), source=["web", "book"] * (N // 2))
        for epoch in range(1, 4):
            for mode in ("train", "eval"):
                run.log_samples(sample_id=np.arange(N), **logged(task, what), mode=mode, epoch=epoch, step=epoch)
    return folder / "run"


def said(capsys, folder, question):
    """Everything that a command writes, in one line."""
    run = str(folder / "run")
    words = shlex.split(question)
    command, rest = (words[:2], words[2:]) if words[0] == "relabel" else (words[:1], words[1:])
    written = {"export": ["-o", str(folder / "out")], "apply": ["-o", str(folder / "out.csv")]}.get(command[-1], [])
    code = main([*command, run, *rest, "--json", *written])
    out, err = capsys.readouterr()
    return code, " ".join(f"{out} {err}".split())


@pytest.mark.parametrize("task", TASKS)
def test_nothing_asks_to_log_what_the_run_has(tmp_path, capsys, monkeypatch, task):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "truth.csv").write_text("sample_id,label\n1,1\n2,0\n")
    (tmp_path / "wrong.csv").write_text("sample_id,mislabelled\n1,1\n2,0\n")
    (tmp_path / "ids.txt").write_text("1\n2\n")
    recorded(tmp_path, task, ("label", "logits"))
    capsys.readouterr()
    for question in QUESTIONS:
        code, told = said(capsys, tmp_path, question)
        assert code in (0, 1, 2), question
        asked_for = re.findall(r"log_samples\([^)]*\)|log (?:logits|labels|predictions)|derives from[^.]*", told)
        assert not asked_for, (question, told)
        assert "not recorded, so left out" not in told, question
        for fact in re.findall(r"--(?:label-key|by) (\w+) say", told):
            assert fact == "source", question


def test_what_is_said_of_sequences_leads_somewhere(tmp_path, capsys):
    run = recorded(tmp_path, "sequence", ("label", "logits"))
    opened = xaicli.open_run(run)
    (tmp_path / "c.csv").write_text("sample_id,label\n1,2\n")
    for to in ("csv", "label-studio", "cvat", "fiftyone", "coco"):
        with pytest.raises(XaiError, match=r"labels are corrected one a sample, and those of .* are tokens") as refused:
            opened.relabel_export(tmp_path / "x", rule="hardest", n=2, to=to)
        assert "xai select --rule hardest" in refused.value.hint
        assert "xai errors" in refused.value.hint
    with pytest.raises(XaiError, match="labels are corrected one a sample"):
        opened.relabel_apply(tmp_path / "c.csv", mode="eval")
    # The ways out that the hint names.
    assert opened.select(rule="hardest", n=2).data["rank"].count() == 2
    opened.relabel_export(tmp_path / "y.json", rule="hardest", n=2, to="label-studio", label_key="source", mode="eval")
    choices = [one.attrib["value"] for one in ElementTree.parse(tmp_path / "y.xml").getroot().iter("Choice")]
    assert sorted(choices) == ["book", "web"]
    (tmp_path / "f.csv").write_text("sample_id,label\n1,web\n")
    applied = opened.relabel_apply(tmp_path / "f.csv", mode="eval", label_key="source")
    assert applied.data.select("recorded", "label").rows() == [("book", "web")]

    with pytest.raises(XaiError, match=r"the labels of .* are tokens") as refused:
        opened.select(rule="balanced", n=4)
    assert refused.value.hint == "--by FACT groups them, --by source say"
    assert opened.select(rule="balanced", by="source", n=4).data["rank"].count() == 4
    rows = opened.check(rule=["ece <= .1", "loss mean by label <= 9", "loss mean by labels <= 9"]).data["reason"]
    assert "the labels here are tokens" in rows[0]
    assert "are tokens: no sample has one" in rows[1]
    assert rows[2] == "no column or fact 'labels'"  # label_prob is like it, and no group
    assert main(["check", str(run), "--rule", "ece <= .1", "--json"]) == 2
    assert "log logits" not in capsys.readouterr().out


@pytest.mark.parametrize("facts", [True, False])
def test_a_fact_is_named_only_where_there_is_one(tmp_path, facts):
    with xaicli.Run(tmp_path / "run", task="sequence") as run:
        run.log_samples(sample_id=[0, 1], loss=[1.0, 2.0], mode="eval", epoch=1)
        if facts:
            run.log_facts([0, 1], **{"film reel": ["a", "b"]})
    with pytest.raises(XaiError, match="labels are their tokens") as refused:
        xaicli.open_run(tmp_path / "run").labels()
    if facts:
        assert refused.value.hint.endswith("--label-key 'film reel' say")
    else:
        assert refused.value.hint.endswith("no facts are recorded: run.log_facts(sample_id, source=...)")


@pytest.mark.parametrize(
    ("task", "what", "wanted"),
    [
        ("regression", ("logits",), "label=y)"),
        ("regression", ("label", "loss"), "logits=z) or prediction="),
        ("regression", ("loss",), "label=y, logits=z) or prediction="),
        ("multilabel", ("logits",), "label=y)"),
        ("binary", ("label", "loss"), "logits=z) or prediction="),
    ],
)
def test_errors_ask_for_what_is_missing_alone(tmp_path, task, what, wanted):
    opened = xaicli.open_run(recorded(tmp_path, task, what))
    with pytest.raises(XaiError, match="to tell errors by") as refused:
        opened.errors()
    assert refused.value.hint == f"log them with run.log_samples(..., {wanted}"


def test_expected_calibration_error_asks_for_labels_alone_where_predictions_are(tmp_path):
    opened = xaicli.open_run(recorded(tmp_path, "classification", ("logits",)))
    assert opened.check(rule=["ece <= .1"]).data["reason"].to_list() == ["no correct was recorded: log labels"]


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_a_task_that_has_no_label_yet_is_no_task_of_classes(tmp_path, task):
    """Its refusals would come again once the labels were logged."""
    opened = xaicli.open_run(recorded(tmp_path, task, ("loss",)))
    what = {"multilabel": "sets", "regression": "numbers"}[task]
    with pytest.raises(XaiError, match=rf"of one class a sample, and the labels of .* are {what}"):
        opened.select(rule="label_issues")
    with pytest.raises(XaiError, match="has no margin") as refused:
        opened.samples(stat="aum", max=1)
    assert refused.value.hint.startswith(f"its labels are {what}")
    assert opened.samples(stat="loss_mean", max=1).data.height > 0
    assert f"the labels here are {what}" in opened.check(rule=["ece <= .1"]).data["reason"][0]
    assert "have no probability" in " ".join(str(opened.dynamics()).split())


@pytest.mark.parametrize("task", ["classification", "multilabel", "regression"])
def test_what_labels_can_be_is_known_of_the_task_where_none_is_recorded(tmp_path, task):
    """A control for numbers was written for classes, and what was written in it could not be brought back."""
    run = recorded(tmp_path, task, ("loss",), label_names=None if task == "regression" else ["cat", "dog", "eel"])
    opened = xaicli.open_run(run)
    opened.relabel_export(tmp_path / "x.json", rule="hardest", n=2, to="label-studio", mode="eval")
    config = (tmp_path / "x.xml").read_text()
    assert ("<Number" in config) is (task == "regression")
    if task != "regression":
        assert all(f'value="{name}"' in config for name in ("cat", "dog", "eel"))
    cell, label = {
        "regression": ("1.5", 1.5),
        "classification": ("dog", 1),
        "multilabel": ('[""cat"", ""eel""]', [0, 2]),
    }[task]
    (tmp_path / "f.csv").write_text(f'sample_id,label\n1,"{cell}"\n')
    assert opened.relabel_apply(tmp_path / "f.csv", mode="eval").data["label"].to_list() == [label]


def test_classes_that_nothing_tells_are_not_offered(tmp_path):
    opened = xaicli.open_run(recorded(tmp_path, "classification", ("loss",)))
    for to in ("label-studio", "cvat", "fiftyone", "coco"):
        with pytest.raises(XaiError, match="are not recorded, and") as refused:
            opened.relabel_export(tmp_path / "x", rule="hardest", n=2, to=to, mode="eval")
        assert "Run(label_names=...)" in refused.value.hint
    opened.relabel_export(tmp_path / "x.csv", rule="hardest", n=2, to="csv", mode="eval")
