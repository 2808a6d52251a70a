"""What is wrong with the files of a run's `state/` folder, found without loading a tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from xaicli.state.folder import numbered_states, verify_state
from xaicli.state.published import CHECKS, UNREADABLE


def faults(folder: Path) -> Iterator[tuple[Path, str]]:
    """Each damaged file, or folder of a state, with the reason.

    Args:
        folder: The run's state folder.
    """
    checks: list[tuple[Path, Callable[[Path], object]]] = [(path, verify_state) for path in numbered_states(folder)]
    checks += [(folder / name, check) for name, check in CHECKS.items() if (folder / name).exists()]
    for path, check in checks:
        try:
            check(path)
        except UNREADABLE as error:
            yield path, str(error) or type(error).__name__
