"""What every test shares: a quiet, fixed environment and the recorded sample run."""

from __future__ import annotations

import functools
import gc
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from xaicli import traceability
from xaicli.recorder import segments

# No test depends on how fast the machine is just then.
hypothesis.settings.register_profile(
    "any-machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any-machine")

ROOT = Path(__file__).parents[1]
SAMPLE_DATA = ROOT / "sample_data"

os.environ.setdefault("OMP_NUM_THREADS", "1")

# Modules and tests are collected once and stay: looking for garbage among them takes a fifth of the time of collecting.
gc.disable()


def pytest_collection_finish() -> None:
    """What is there now is no garbage; what the tests make is looked through as always."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def checkout_described_once() -> Iterator[None]:
    """Every run that is opened says of which commit it is: the state of this checkout is asked of git once."""
    describe, here = traceability.describe_code, functools.cache(traceability.describe_code)

    def described(folder: Path) -> dict[str, Any]:
        return dict(here(ROOT)) if ROOT in (folder, *folder.parents) else describe(folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(traceability, "describe_code", described)
        yield


@pytest.fixture(scope="session", autouse=True)
def power_stays_on() -> Iterator[None]:
    """No test cuts the power, and few fill a segment: within this process a run of ten rows neither waits for the disk
    nor has 5.5 MB of its pages touched, half of what it took. Processes of their own do both, as users' do. A step that
    does fill one waits as long as a busy machine takes, so that no row is dropped.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        patch.setattr(segments, "SEGMENT_BYTES", 250_000)
        patch.setattr(segments, "LONGEST_WAIT", 60.0)
        yield


USUAL = {name: getattr(segments, name) for name in ("SEGMENT_BYTES", "LONGEST_WAIT")}


@pytest.fixture
def usual_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments as those of users, for tests of what a disk has room for and of when rows are dropped."""
    for name, value in USUAL.items():
        monkeypatch.setattr(segments, name, value)


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the user's, and output 80 columns wide without colour."""
    for name in list(os.environ):
        if name.startswith("XAI_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("_TYPER_FORCE_DISABLE_TERMINAL", "1")
    monkeypatch.delenv("FORCE_COLOR", raising=False)


@pytest.fixture(scope="session")
def sample_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the recorded run in `sample_data/`: readers may write caches and reports into it."""
    copy = tmp_path_factory.mktemp("sample") / "run"
    shutil.copytree(SAMPLE_DATA / "run", copy)
    return copy


Xai = Callable[..., tuple[int, str, str]]


@pytest.fixture
def xai(capsys: pytest.CaptureFixture[str]) -> Xai:
    """Run a command line through its entrance: `status, out, err = xai("samples", run)`."""
    from xaicli.cli import main

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return run
