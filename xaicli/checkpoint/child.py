"""The first load of a graph that was not made here, in a process of its own with limits on memory, files and time.

What the inspection admits cannot run code; it could still be built to take memory or time without end. A graph that was
once saved or checked on this machine is remembered by its digest and not checked again.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from xaicli.checkpoint.known import is_known, remember
from xaicli.checkpoint.refusal import refused
from xaicli.errors import XaiError

_MEMORY = 16 * 2**30
"""Address space, not memory in use: torch alone maps several GiB."""
_CPU_SECONDS = 60
_WALL_SECONDS = 600
"""Long, for a busy machine: the processor time is the real limit."""
_LARGEST_WRITTEN = 2**20
_REFUSED, _FAILED, _OUT_OF_MEMORY = 3, 4, 5


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
        command = [sys.executable, "-P", "-m", "xaicli.checkpoint.child", str(file), str(memory + 4 * len(data))]
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


def _environment(folder: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"}
    package = Path(__file__).parents[2]
    path = os.pathsep.join(filter(None, (str(package), os.environ.get("PYTHONPATH"))))
    here = {"TMPDIR": folder, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    return {**kept, **here, "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}


def _main(file: str, memory: str) -> int:
    """What the child does."""
    _limit(int(memory))
    import torch

    from xaicli.checkpoint.archive import Archive
    from xaicli.checkpoint.exported import first_line, load_graph, zeros_for
    from xaicli.checkpoint.package import open_package
    from xaicli.checkpoint.refusal import RefusedError

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


def _limit(memory: int) -> None:
    try:
        import resource
    except ImportError:  # no such limits on Windows: the time limit remains
        return
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_LARGEST_WRITTEN, _LARGEST_WRITTEN))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:3]))
