"""A checkpoint of many tensors is opened once for what it is and for all of their values."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

_COUNTED = """
import sys
from pathlib import Path
path, opened = Path(sys.argv[1]), []
sys.addaudithook(lambda event, args: event == "open" and str(args[0]) == str(path) and opened.append(args[0]))
from xaicli.checkpoint.tensors import values_of
from xaicli.checkpoint.torch_file import read_torch
content = read_torch(path)
total = sum(float(values_of(tensor).sum()) for tensor in content.value.values())
print(len(content.value), total, len(opened))
"""


def test_the_values_of_all_tensors_are_read_from_one_opened_file(tmp_path: Path) -> None:
    torch.save({f"layer{n}.weight": torch.full((3, 2), float(n)) for n in range(20)}, tmp_path / "many.pt")
    code = [sys.executable, "-W", "error", "-c", _COUNTED, str(tmp_path / "many.pt")]
    done = subprocess.run(code, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.split() == ["20", str(6.0 * sum(range(20))), "1"]
