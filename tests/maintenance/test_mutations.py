"""Damage anywhere in a run, whatever is asked: the right numbers or the damage named; no crash."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Xai = Callable[..., tuple[int, str, str]]

MUTATIONS = int(os.environ.get("XAI_TEST_MUTATIONS", "25"))
ANSWERS = ("info", "samples", "labels", "dynamics", "scalars", "findings", "query")
OTHERS = ("ls", "doctor", "export", "compact")
UNCHECKED = (".json", ".stats", ".lock", ".scalars")
"""Files without checksums: a changed digit in them is a digit, but nothing may crash. And journals: where one is cut,
the rest looks like a line that is just being written."""

_TRAINING = """
import os, sys
import numpy as np
from xaicli.layout import RunLayout
from xaicli.maintenance.compact import compact
from xaicli.recorder.run import Run
for attempt in range(2):
    run = Run(sys.argv[1], label_names=["a", "b", "c"], keep_probs=True)
    draw = np.random.default_rng(attempt)
    for epoch in run.epochs(3 + attempt):
        for mode in ("train", "eval"):
            for batch in run.steps(range(3), mode=mode):
                ids = np.arange(20 * batch, 20 * batch + 20)
                run.log_samples(sample_id=ids, label=ids % 3, logits=draw.normal(size=(20, 3)))
        run.log({"lr": 1 / epoch, "epoch": epoch})
        if epoch < 3:
            run.flush()
    if not attempt:
        run.log_images(range(3), np.zeros((3, 8, 8, 3), np.uint8))
        run.log_inputs(range(3), np.zeros((3, 4), np.float32))
        run.add_metrics_data({"box": [1.0, 2.0], "example_id": [0, 1]}, name="boxes")
        run.state.save_state()
        run.close()
        compact(RunLayout(run.layout.root))
os._exit(0)  # the second is killed
"""


def flipped(content: bytearray, draw: random.Random) -> None:
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)


def cut(content: bytearray, draw: random.Random) -> None:
    del content[draw.randrange(len(content)) :]


def zeroed(content: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(content))
    content[start : start + draw.randrange(1, 200)] = bytes(len(content[start : start + draw.randrange(1, 200)]))


def flipped_near_the_end(content: bytearray, draw: random.Random) -> None:
    content[-draw.randrange(1, min(len(content), 400) + 1)] ^= 1 << draw.randrange(8)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("recorded") / "run"
    subprocess.run([sys.executable, "-c", _TRAINING, run_dir], check=True, timeout=120)
    return run_dir


def ask(xai: Xai, command: str, run_dir: Path) -> tuple[int, Any, bool, str]:
    """(status, what was answered, whether damage is named, everything said)."""
    more = (
        ["SELECT mode, epoch, count(*) AS n, max(loss) AS most FROM samples GROUP BY mode, epoch ORDER BY mode, epoch"]
        if command == "query"
        else []
    )
    output = ["-o", str(run_dir.parent / "out")] if command == "export" else []
    status, out, err = xai(command, run_dir, *more, *output, "--json")
    told = json.loads(out) if out.startswith("{") else None
    named = told is not None and bool((told.get("counts") or {}).get("damaged") or told["warnings"])
    return status, told and (told.get("rows"), told.get("data")), named, out + err


def test_damage_anywhere_is_named_or_harmless(recorded: Path, tmp_path: Path, xai: Xai) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(recorded, run_dir)
    truth = {command: ask(xai, command, run_dir) for command in ANSWERS}
    assert {status for status, *_ in truth.values()} == {0}
    shutil.rmtree(run_dir)
    files = sorted(path.relative_to(recorded) for path in recorded.rglob("*") if path.is_file() and path.stat().st_size)
    for number in range(MUTATIONS):
        draw = random.Random(number)
        shutil.copytree(recorded, run_dir)
        path = run_dir / draw.choice(files)
        content = bytearray(path.read_bytes())
        draw.choice([flipped, cut, zeroed, flipped_near_the_end])(content, draw)
        path.write_bytes(content)
        command = draw.choice(ANSWERS + OTHERS)
        status, answer, is_named, said = ask(xai, command, run_dir)
        case = (number, command, path.relative_to(run_dir).as_posix(), said)
        assert status in (0, 1), case
        assert "Traceback" not in said, case
        assert "a fault of xai" not in said, case
        if status == 0 and command in truth and path.suffix not in UNCHECKED and answer != truth[command][1]:
            assert is_named or path.name in said, case
        shutil.rmtree(run_dir)
