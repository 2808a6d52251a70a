"""The device these tests run on, and what is asked of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

HAS_CARD = torch.cuda.is_available()
DEVICE = torch.device("cuda", 0) if HAS_CARD else torch.device("cpu")


@contextmanager
def no_synchronisation() -> Iterator[None]:
    """Whatever waits for the device raises."""
    if not HAS_CARD:
        yield
        return
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def synchronised() -> None:
    """Wait for the device."""
    if HAS_CARD:
        torch.cuda.synchronize()


def pinned(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in pinned memory."""
    return tensor.pin_memory() if HAS_CARD else tensor.clone()
