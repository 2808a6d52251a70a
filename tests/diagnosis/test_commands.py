"""The command under each page asks the same question again."""

import html
import json
import shlex

import numpy as np
import pytest

import xaicli
from xaicli.cli import main


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("commands") / "a run"
    rng = np.random.default_rng(0)
    with xaicli.Run(path, label_names=["a cat", "dog, small", "owl"]) as run:
        run.log_facts(np.arange(300), kind=rng.choice(["x, y", "z"], 300).tolist())
        for epoch in (1, 2):
            for mode, ds_id in (("train", ""), ("eval", "day, one"), ("eval", "night")):
                label = rng.integers(0, 3, 300)
                logits = rng.normal(size=(300, 3)) + np.eye(3)[label]
                ids = np.arange(300)
                for at in range(0, 300, 50):
                    part = slice(at, at + 50)
                    run.log_samples(
                        sample_id=ids[part],
                        label=label[part],
                        logits=logits[part].astype(np.float32),
                        mode=mode,
                        ds_id=ds_id,
                        epoch=epoch,
                        step=epoch * 10 + at // 50,
                    )
    return path


@pytest.mark.parametrize(
    "words",
    [
        ["confusion", "--epoch", "1", "--ds-id", "!night"],
        ["confusion", "--by", "label", "--label-map", "cat=0,dog=1"],
        ["confusion", "--cell", '"dog, small",owl', "--metric", "entropy", "--top", "3"],
        ["steps", "--spikes", "2", "--duplicates", "last"],
        ["steps", "--mode", "eval", "--around", "12", "--ds-id", "night"],
        ["steps", "--step", "13", "--metric", "entropy"],
        ["slices", "--by", "kind", "--min-n", "20", "--ds-id", '"day, one"'],
        ["slices", "--metric", "correct,loss", "--where", "loss < 3"],
    ],
    ids=lambda words: " ".join(words),
)
def test_the_command_under_the_page_gives_the_same_rows(path, words, capsys, tmp_path):
    assert main([words[0], str(path), *words[1:], "--json", "-o", str(tmp_path), "--format", "html"]) == 0
    first = json.loads(capsys.readouterr().out)
    page = next(tmp_path.glob("*.html")).read_text()
    command = next(line for line in page.split("<") if "xai " + words[0] + " " in line).partition(">")[2]
    again = shlex.split(html.unescape(command))
    assert again[0] == "xai"
    assert main([*again[1:], "--json"]) == 0
    second = json.loads(capsys.readouterr().out)
    assert first["rows"] == second["rows"]
    assert first["selection"] == second["selection"]
