"""The first load of a graph from elsewhere happens in a child process with limits."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.checkpoint import hostile
from xaicli.checkpoint.archive import Archive, RefusedError
from xaicli.checkpoint.exported import check_in_child, is_known, remember
from xaicli.checkpoint.package import open_package
from xaicli.checkpoint.save import save_checkpoint


class Greedy(nn.Module):
    """Makes a tensor of its own when it runs; one number in its graph says how large."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.zeros(1, 2**20, dtype=x.dtype).sum()


def admitted(model: nn.Module, *inputs: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(model, inputs), buffer)
    with Archive(buffer, "graph") as archive:
        return open_package(archive).rebuilt


@pytest.fixture
def nothing_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.usefixtures("nothing_known")
def test_a_good_graph_is_checked_once() -> None:
    data = admitted(nn.Tanh(), torch.ones(2, 3))
    assert not is_known(data)
    check_in_child(data, Path("graph.pt2"))
    assert is_known(data)
    check_in_child(data, Path("graph.pt2"), wall_seconds=0)


@pytest.mark.usefixtures("nothing_known")
def test_a_graph_that_takes_memory_without_end_is_refused() -> None:
    members = hostile.members_of(admitted(Greedy(), torch.ones(2, 3)))
    modest, greedy = b'"as_ints": [1, 1048576]', b'"as_ints": [99999, 1048576]'
    assert modest in members[hostile.GRAPH]
    members[hostile.GRAPH] = members[hostile.GRAPH].replace(modest, greedy)
    with pytest.raises(RefusedError, match="more memory or time than it should"):
        check_in_child(hostile.archive_of(members), Path("graph.pt2"))


@pytest.mark.usefixtures("nothing_known")
def test_a_graph_that_takes_too_long_is_refused() -> None:
    with pytest.raises(RefusedError, match=r"takes more than 0\.01 s"):
        check_in_child(admitted(nn.Tanh(), torch.ones(2, 3)), Path("graph.pt2"), wall_seconds=0.01)


@pytest.mark.usefixtures("nothing_known")
def test_the_child_inspects_for_itself(pt2: Path, canary: Path) -> None:
    data = hostile.edited(pt2.read_bytes(), hostile.opaque_constant, canary)
    with pytest.raises(RefusedError, match=r"a graph that is not admitted: [^b].*an opaque constant"):
        check_in_child(data, pt2)


@pytest.mark.usefixtures("nothing_known")
def test_what_was_saved_here_is_known(tmp_path: Path) -> None:
    path = save_checkpoint(nn.Linear(3, 2), tmp_path / "ckpt.pt", example_inputs=torch.ones(2, 3))
    graph = bytes(torch.load(path, weights_only=True)["graph"].numpy())
    with Archive(io.BytesIO(graph), path) as archive:
        assert open_package(archive).rebuilt == graph
    assert is_known(graph)


def test_a_cache_that_cannot_be_written_is_no_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    remember(b"graph")
    assert not is_known(b"graph")
