"""Parts of a sampler's draws for the processes of a distributed training; takes torch with it."""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import Sampler


class SharedSampler(Sampler[int]):
    """Every n-th draw of a sampler that draws the same in each of n processes.

    Args:
        whole: The sampler, with the same seed everywhere.
        rank: Which process this is.
        world_size: How many there are.
    """

    def __init__(self, whole: Sampler[int], rank: int, world_size: int) -> None:
        self._whole, self._rank, self._world_size = whole, rank, world_size

    def __len__(self) -> int:
        return -(-len(self._whole) // self._world_size)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[int]:
        drawn = list(self._whole)
        if not drawn:
            return
        for number in range(len(self)):
            yield drawn[(number * self._world_size + self._rank) % len(drawn)]
