"""Exported graphs: from an admitted archive to a module, and from a module to an archive.

A graph that was not made here first loads in a process of its own with limits on memory, files and time: what the
inspection admits cannot run code; it could still be built to take memory or time without end. A graph that was once
saved or checked on this machine is remembered by its digest and not checked again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import inspect
import io
import logging
import os
import subprocess
import sys
import tempfile
import types
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import fx, nn
from torch.export import Dim

from xaicli.checkpoint.archive import Archive, RefusedError, refused
from xaicli.checkpoint.package import Package, dtype_name, open_package
from xaicli.errors import XaiError
from xaicli.heads.calling import Call

_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_FORBID = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"

_MEMORY = 16 * 2**30
"""Address space, not memory in use: torch alone maps several GiB."""
_CPU_SECONDS = 60
_BYTES_PER_SECOND = 16 << 20
"""A second more for so many bytes of an archive: reading a large graph and running it once takes one core longer."""
_MOST_CPU_SECONDS = 540
_WALL_SECONDS = 600
"""Long, for a busy machine: the processor time is the real limit."""
_LARGEST_WRITTEN = 2**20
_REFUSED, _FAILED, _OUT_OF_MEMORY = 3, 4, 5


def load_graph(package: Package, path: Path | str, *, device: str = "cpu") -> fx.GraphModule:
    """Load an admitted graph.

    Args:
        package: The archive as rebuilt by the inspection.
        path: What to call it in errors.
        device: Where the model shall be.

    Returns:
        The graph as a module, whose batch size and mode are as they were exported.

    Raises:
        XaiError: torch cannot read the graph.
    """
    try:
        with forced_weights_only():
            program = torch.export.load(io.BytesIO(package.rebuilt))
        if torch.device(device).type != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, device)
        return evaluating(_of_any_layout(program.module(check_guards=False)))
    except Exception as error:
        raise XaiError(
            f"{path}: torch {torch.__version__} cannot read the graph: {first_line(error)}",
            hint="save it again with the torch that reads it, or load the weights with --arch module:factory",
        ) from error


_VIEWS = (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default)


def _of_any_layout(graph: fx.GraphModule) -> fx.GraphModule:
    """A graph whose views are reshapes, which are the same where a view is possible.

    What is contiguous where the graph was made need not be where it runs: attention answers in another order of memory
    on another device, and the `contiguous` before the view is left out of a graph where it did nothing.
    """
    for part in graph.modules():
        if isinstance(part, fx.GraphModule):
            views = [node for node in part.graph.nodes if node.op == "call_function" and node.target in _VIEWS]
            for node in views:
                node.target = torch.ops.aten.reshape.default
            if views:
                part.recompile()
    return graph


def export_graph(
    model: nn.Module,
    example_inputs: Mapping[str, torch.Tensor],
    call: Call | None = None,
    *,
    constants: Mapping[str, Any] | None = None,
) -> tuple[bytes, str]:
    """Export a model and check that the graph computes the same.

    The batch axis can have any length where the model allows one, and so can the second axis of integers, which are
    tokens; the other axes stay as they are. The archive holds neither the example inputs nor the maker's source lines.

    Args:
        model: In evaluation mode, on the CPU.
        example_inputs: One tensor an input, each (batch, ...), by the names the graph shall have for them.
        call: How the model takes them; None for in their order.
        constants: What the model is called with besides, by name.

    Returns:
        The `.pt2` archive, and why the batch size is fixed ("" when it is not).

    Raises:
        Exception: Whatever torch says of a model it cannot export, or RefusedError for a graph `xai` would not load.
    """
    # torch takes a length of 1 for a constant: a batch of one is doubled. One tensor given twice becomes two.
    batches = tuple(
        torch.cat([x, x]) if x.ndim and x.shape[0] == 1 else x.detach().clone() for x in example_inputs.values()
    )
    in_order = Call(tuple(range(len(batches))))
    called: nn.Module = _Called(model, tuple(example_inputs), call or in_order, constants or {})
    with torch.no_grad():
        if call in (None, in_order) and not constants and not _is_variadic(model) and _is_plain(model(*batches)):
            called = model
        expected = called(*batches)
    problems: list[str] = []
    with _quiet_torch():
        for axes in _axes(batches):
            try:
                data = _exported(called, batches, axes)
                package, graph = _admitted(data)
                _compare(graph, batches, expected)
                if any(size is None for entry in package.program.inputs for size in entry.shape[1:2]):
                    shorter = tuple(x[:, :-1] if x.ndim > 1 and _is_tokens(x) else x for x in batches)
                    with torch.no_grad():
                        _compare(graph, shorter, called(*shorter))
                break
            except Exception as error:
                problems.append(why_not_exported(error))
                if axes is None:
                    raise
    remember(package.rebuilt)
    return package.rebuilt, problems[-1] if axes is None else ""


def _axes(batches: Sequence[torch.Tensor]) -> Iterator[tuple[dict[int, Any] | None, ...] | None]:
    """Which axes shall have any length, the most first; None for none of them."""
    batch = Dim("batch", min=1)
    of_batch = tuple({0: batch} if x.ndim else None for x in batches)
    if any(_is_tokens(x) for x in batches):
        yield tuple(
            {0: batch, 1: Dim.AUTO} if _is_tokens(x) else axes for x, axes in zip(batches, of_batch, strict=True)
        )
    yield of_batch
    yield None


def _is_tokens(x: torch.Tensor) -> bool:
    return x.ndim == 2 and not x.is_floating_point() and x.shape[1] > 2


def _exported(called: nn.Module, batches: tuple[torch.Tensor, ...], axes: Any) -> io.BytesIO:
    program = torch.export.export(called, batches, dynamic_shapes=axes)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer


def _admitted(data: io.BytesIO) -> tuple[Package, fx.GraphModule]:
    with Archive(data, "the exported graph") as archive:
        package = open_package(archive)
    return package, load_graph(package, "the exported graph")


def _compare(graph: nn.Module, batches: Sequence[torch.Tensor], expected: Any) -> None:
    with torch.no_grad():
        for one, other in zip(pytree.tree_leaves(expected), pytree.tree_leaves(graph(*batches)), strict=True):
            torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4, equal_nan=True)


class _Called(nn.Module):
    """A model called with tensors in order, that answers with tensors, tuples, lists and dicts only.

    Args:
        model: The model.
        names: What the graph shall call its inputs.
        call: How the model takes them.
        constants: Further arguments, by name.
    """

    def __init__(self, model: nn.Module, names: tuple[str, ...], call: Call, constants: Mapping[str, Any]) -> None:
        super().__init__()
        self.model = model

        def forward(*inputs: torch.Tensor) -> Any:
            return _plain(call(model, inputs, constants))

        parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
        forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        self.forward = forward


def _plain(output: Any) -> Any:
    """An output made of tensors in tuples, lists and dicts; what holds none (a cache, a text) is left out."""
    if isinstance(output, torch.Tensor):
        return output
    if isinstance(output, Mapping):
        parts = {str(key): _plain(value) for key, value in output.items()}
        return {key: value for key, value in parts.items() if value is not None}
    if isinstance(output, tuple) and hasattr(output, "_asdict"):
        return _plain(output._asdict())
    if isinstance(output, tuple | list):
        values = [part for part in map(_plain, output) if part is not None]
        return (tuple(values) if isinstance(output, tuple) else values) if values else None
    if dataclasses.is_dataclass(output):
        return _plain({field.name: getattr(output, field.name) for field in dataclasses.fields(output)})
    return None


def _is_plain(output: object) -> bool:
    if type(output) in (tuple, list):
        return all(_is_plain(item) for item in output)  # type: ignore[attr-defined]
    if type(output) is dict:
        return all(isinstance(key, str) and _is_plain(item) for key, item in output.items())
    return isinstance(output, torch.Tensor)


def _is_variadic(model: nn.Module) -> bool:
    kinds = {p.kind for p in inspect.signature(model.forward).parameters.values()}
    return inspect.Parameter.VAR_POSITIONAL in kinds


def evaluating(graph: fx.GraphModule) -> fx.GraphModule:
    """A graph whose `eval()` and `train()` do nothing instead of raising: its mode was fixed by the export."""

    def keep(module: fx.GraphModule, mode: bool = True) -> fx.GraphModule:
        del mode
        return module

    graph.training = False
    graph.train = types.MethodType(keep, graph)  # type: ignore[method-assign]
    graph.eval = types.MethodType(keep, graph)  # type: ignore[method-assign]
    return graph


def zeros_for(package: Package) -> tuple[torch.Tensor, ...]:
    """Inputs of zeros that a graph accepts."""
    return tuple(
        torch.zeros(entry.example, dtype=getattr(torch, dtype_name(entry.dtype))) for entry in package.program.inputs
    )


@contextlib.contextmanager
def _quiet_torch() -> Iterator[None]:
    """Without the pages torch logs, and prints, about a model it cannot export; the exception says it."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextlib.contextmanager
def forced_weights_only() -> Iterator[None]:
    """Make every `torch.load` in the block read weights only, also those inside torch.

    torch refuses to run with both of its variables set, so the one that opens the door is taken away.
    """
    kept = {name: os.environ.pop(name, None) for name in (_FORCE, _FORBID)}
    os.environ[_FORCE] = "1"
    try:
        yield
    finally:
        del os.environ[_FORCE]
        os.environ.update({name: value for name, value in kept.items() if value is not None})


def first_line(error: BaseException) -> str:
    """What an exception of torch says first, without the pages that follow."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def why_not_exported(error: BaseException) -> str:
    """Why torch could not export a model, in plain words where torch's own are about its insides."""
    said = str(error)
    if "data-dependent" in said:
        return "its forward goes another way, or makes other shapes, for other values of its inputs (data-dependent)"
    if "Constraints violated (batch)" in said:
        return "its forward fixes the size of the batch"
    return first_line(error)


def check_in_child(data: bytes, path: Path, *, wall_seconds: float = _WALL_SECONDS, memory: int = _MEMORY) -> None:
    """Load a graph in a child process and run it once on zeros; return when that ended well.

    Args:
        data: The `.pt2` archive, inspected already.
        path: What to call it in errors.
        wall_seconds: How long it may take at most.
        memory: How many bytes of address space it may have, beside four times the archive.

    Raises:
        RefusedError: It took too long, too much memory, or ended the process.
        XaiError: torch cannot read or run it.
    """
    if is_known(data):
        return
    with tempfile.TemporaryDirectory(prefix="xai-") as folder:
        file = Path(folder, "graph.pt2")
        file.write_bytes(data)
        # -P: whatever lies in the current folder is not imported.
        limits = [str(memory + 4 * len(data)), str(cpu_seconds(len(data)))]
        command = [sys.executable, "-P", "-m", "xaicli.checkpoint.exported", str(file), *limits]
        try:
            ended = subprocess.run(
                command, capture_output=True, text=True, timeout=wall_seconds, env=_environment(folder), check=False
            )
        except subprocess.TimeoutExpired as error:
            raise refused(path, f"a graph that takes more than {wall_seconds} s to load") from error
    if ended.returncode == _FAILED:
        raise XaiError(f"{path}: {ended.stdout.strip()[:500]}", hint="load the weights with --arch module:factory")
    if ended.returncode == _REFUSED:
        raise refused(path, f"a graph that is not admitted: {ended.stdout.strip()[:500]}")
    if ended.returncode == _OUT_OF_MEMORY or ended.returncode < 0:
        raise refused(path, "a graph that needs more memory or time than it should")
    if ended.returncode != 0:
        said = ended.stderr.strip().splitlines()[-1:] or [f"it ended with {ended.returncode}"]
        raise XaiError(
            f"{path}: its graph could not be checked: {said[0]}", hint="run again with --debug and report it"
        )
    remember(data)


def cpu_seconds(size: int) -> int:
    """How much processor time an archive of so many bytes may take to be read and run once."""
    return min(_MOST_CPU_SECONDS, _CPU_SECONDS + size // _BYTES_PER_SECOND)


def _environment(folder: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"}
    package = Path(__file__).parents[2]
    path = os.pathsep.join(filter(None, (str(package), os.environ.get("PYTHONPATH"))))
    here = {"TMPDIR": folder, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    return {**kept, **here, "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}


def _main(file: str, memory: str, seconds: str) -> int:
    """What the child does."""
    _limit(int(memory), int(seconds))
    import torch

    from xaicli.checkpoint.archive import Archive
    from xaicli.checkpoint.exported import first_line, load_graph, zeros_for
    from xaicli.checkpoint.package import open_package

    torch.set_num_threads(1)
    try:
        with Archive.open(Path(file)) as archive:
            package = open_package(archive)
        model = load_graph(package, "the graph")
        with torch.no_grad():
            model(*zeros_for(package))
    except RefusedError as error:
        print(error.message)  # noqa: T201 - this is the child's answer
        return _REFUSED
    except MemoryError:
        return _OUT_OF_MEMORY
    except Exception as error:
        if "allocate" in str(error):
            return _OUT_OF_MEMORY
        print(first_line(error))  # noqa: T201
        return _FAILED
    return 0


def _limit(memory: int, seconds: int) -> None:
    try:
        import resource
    except ImportError:  # no such limits on Windows: the time limit remains
        return
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_LARGEST_WRITTEN, _LARGEST_WRITTEN))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def is_known(data: bytes) -> bool:
    """Whether a graph was saved or checked on this machine before."""
    mark = _mark(data)
    return mark is not None and os.access(mark, os.F_OK)


def remember(data: bytes) -> None:
    """Note that a graph is known; where that cannot be written it will be checked again."""
    mark = _mark(data)
    if mark is None:
        return
    with contextlib.suppress(OSError):
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()


def _mark(data: bytes) -> Path | None:
    """Where a known graph is noted; None without a home: never in the current folder, which may be anyone's."""
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    return cache / "xai" / "graphs" / hashlib.sha256(data).hexdigest() if cache.is_absolute() else None


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:4]))
