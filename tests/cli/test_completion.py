"""What a real bash offers after Tab."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import xaicli

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")

COMMANDS = Path(sys.executable).parent
SAMPLE_RUN = Path(__file__).parents[2] / "sample_data" / "run"

# Asks the function that `xai --show-completion` defines, as readline does.
_SCRIPT = """
eval "$(_XAI_COMPLETE=source_bash xai)"
for line in "$@"; do
    read -ra COMP_WORDS <<< "$line"
    [[ "$line" == *" " ]] && COMP_WORDS+=("")
    COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
    COMPREPLY=()
    _xai_completion xai "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"
    (IFS=' '; echo "${COMPREPLY[*]}")
done
"""


def test_names_of_the_run_and_words_are_completed(tmp_path: Path) -> None:
    shutil.copytree(SAMPLE_RUN, tmp_path / "runs" / "demo")
    with xaicli.Run(tmp_path / "sets") as run:
        for ds_id in ("day", "d,1"):
            run.log_samples(sample_id=[1], loss=[1.0], mode="eval", ds_id=ds_id, epoch=1, step=1)
    expected = {
        "xai samples sets --ds-id ": "day !day",  # `d,1` would be taken for two
        "xai sa": "samples saliency",
        "xai samples --me": "--metric",
        "xai samples runs/demo --metric ": "loss label_prob top_prob margin el2n entropy",
        "xai samples --metric loss,m": "loss,margin",  # the newest run below ./runs
        "xai samples --mode ": "train eval all !train !eval",
        "xai samples --epoch l": "last",
        "xai labels --label-map thr": "three=3",
        "xai labels --label-key ": "label prediction correct",
        "xai labels --bounds std,r": "std,range",
        "xai dynamics --engine d": "duckdb",
        "xai labels --format html,p": "html,png",
        "xai export --format p": "parquet",
        "xai saliency --model ": "ckpt.pt",
        "xai saliency --methods gradient,s": "gradient,smoothgrad gradient,smint",
        "xai saliency --baseline b": "black blur",
        "xai select --rule h": "hardest",
        "xai relabel export --to c": "cvat coco csv",
        "xai watch --metric l": "loss label_prob",
        "xai samples nowhere --metric ": "",
    }
    environment = {**os.environ, "PATH": f"{COMMANDS}{os.pathsep}{os.environ['PATH']}"}
    answers = subprocess.run(
        ["bash", "-c", _SCRIPT, "bash", *expected],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert dict(zip(expected, answers, strict=True)) == expected
