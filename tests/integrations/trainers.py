"""A quiet trainer of Lightning on the CPU, and what xai warned of while it was at work."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest


def quiet_trainer(callback: Any, folder: Path, **options: Any) -> Any:
    """A `Trainer` with a callback, or several in a list, that says nothing and writes no files of its own."""
    lightning = pytest.importorskip("lightning.pytorch", reason="Lightning is not installed")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    usual = {"accelerator": "cpu", "enable_checkpointing": False, "default_root_dir": folder, **quiet}
    callbacks = callback if isinstance(callback, list) else [callback]
    return lightning.Trainer(**{**usual, "callbacks": callbacks, **options})


def said_by_xai(caught: Iterable[warnings.WarningMessage]) -> list[str]:
    """The texts of its warnings among those that were recorded."""
    return [str(one.message) for one in caught if str(one.message).startswith("xai:")]
