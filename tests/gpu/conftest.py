"""What needs a CUDA device: skipped with a reason where there is none.

`XAI_GPU_DRY=1` runs all that a CPU can run of these tests on it, so that they are not tried for the first time on the
day that a card is there. `XAI_GPU_INDUCTOR=1` compiles a step with inductor as well, which takes a minute by itself.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

HERE = Path(__file__).parent
IS_DRY = not torch.cuda.is_available() and os.environ.get("XAI_GPU_DRY") == "1"


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Skip what asks for more than there is."""
    for item in items:
        if HERE not in Path(str(item.path)).parents:
            continue
        if not torch.cuda.is_available():
            if not IS_DRY:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
            elif item.get_closest_marker("card") is not None:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device, and no CPU can stand in"))
        elif item.get_closest_marker("two_cards") is not None and torch.cuda.device_count() < 2:
            item.add_marker(pytest.mark.skip(reason="needs two CUDA devices"))
