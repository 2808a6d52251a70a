"""A command that is interrupted while it draws leaves a page of what is finished."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from xaicli import Run, open_run
from xaicli.render.figure import Pictures


def test_a_page_that_is_interrupted_holds_its_tables_and_the_pictures_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Run(tmp_path / "run", label_names=["cat", "dog"]) as run:
        for epoch in (1, 2):
            ids = np.arange(8)
            run.log_samples(sample_id=ids, label=ids % 2, loss=ids / 4 + epoch, mode="eval", epoch=epoch)
    answer = open_run(tmp_path / "run")
    whole = answer.labels(bounds=["std", "range"]).html()
    draw, drawn = Pictures._draw, []

    def interrupted(pictures: Pictures, chart: object, identity: str) -> object:
        drawn.append(chart)
        if len(drawn) == 2:
            raise KeyboardInterrupt
        return draw(pictures, chart, identity)  # type: ignore[arg-type]

    monkeypatch.setattr(Pictures, "_draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        answer.labels(bounds=["std", "range"]).save(tmp_path / "out", ["html"])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["labels.html"]
    page = (tmp_path / "out" / "labels.html").read_text()
    assert len(drawn) == 2
    # The overview is there; of each band the two small charts are not.
    assert 0 < page.count('<path class="line') < whole.count('<path class="line')
    assert page.count("not drawn: the command was interrupted") == 4
    assert re.findall(r"<td[^>]*>[^<]*</td>", page) == re.findall(r"<td[^>]*>[^<]*</td>", whole)
    assert page.rstrip().endswith("</html>")


PICTURES = ["labels-loss-eval.png", "labels-loss-eval-std.png"]
INTERRUPTED = """
import os, signal, sys
import MODULE as module
kept, calls = module.NAME, []
def interrupting(*args, **options):
    calls.append(args)
    if len(calls) == AT:
        os.kill(os.getpid(), signal.SIGINT)
    return kept(*args, **options)
module.NAME = interrupting
sys.argv = ["xai", *ARGUMENTS]
from xaicli.__main__ import entry
entry()
"""


def interrupted_at(module: str, name: str, at: int, arguments: list[str]) -> tuple[int, str]:
    """Status and standard error of a command that Ctrl-C meets in the n-th call of a function."""
    words = {"MODULE": module, "NAME": name, "AT": str(at), "ARGUMENTS": repr(arguments)}
    code = re.sub("|".join(words), lambda word: words[word[0]], INTERRUPTED)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("at", "there", "said"),
    [
        (1, [], "nothing is written to OUT"),
        (2, ["labels.html"], "labels.html is in OUT, pictures, labels.csv and labels.json are not"),
        (4, ["labels.html", *PICTURES], "labels.csv and labels.json are not"),
        (5, ["labels.html", *PICTURES, "labels.csv"], "labels.json is not"),
    ],
)
def test_an_interrupted_command_says_what_it_leaves(tmp_path: Path, at: int, there: list[str], said: str) -> None:
    with Run(tmp_path / "run", label_names=["cat", "dog"]) as run:
        ids = np.arange(8)
        run.log_samples(sample_id=ids, label=ids % 2, loss=ids / 4, mode="eval", epoch=1)
    arguments = ["labels", str(tmp_path / "run"), "-o", str(tmp_path / "out")]
    status, told = interrupted_at("xaicli.files", "Written.add", at, arguments)
    assert status == 130
    assert "warning: interrupted: " in told
    assert said.replace("OUT", str(tmp_path / "out")) in told
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(there)


def test_saliency_that_is_interrupted_says_what_is_kept_and_goes_on_there(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    with Run(tmp_path / "run") as run:
        x = torch.rand(6, 4, generator=torch.Generator().manual_seed(0))
        run.log_inputs(range(6), x, label=[0, 1] * 3)
        run.log_samples(sample_id=range(6), label=[0, 1] * 3, loss=[1.0] * 6, mode="eval", epoch=1)
        run.save_checkpoint(torch.nn.Linear(4, 2), example_inputs=x[:2])
    arguments = ["saliency", str(tmp_path / "run"), "--samples", "6", "-o", str(tmp_path / "out"), "-q"]
    status, told = interrupted_at("xaicli.attribution.store", "Store.write", 4, arguments)
    assert status == 130
    assert "3 of 6 samples are finished and kept, no report is written; the same call goes on there" in told
    again, _ = interrupted_at("xaicli.attribution.store", "Store.write", 4, arguments)
    assert again == 0, "three were left to explain"
    assert (tmp_path / "out" / "saliency.html").exists()
