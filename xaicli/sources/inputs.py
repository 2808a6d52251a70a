"""What every source of samples gives: ids, model inputs, labels, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Inputs:
    """Some samples, ready for a model.

    Attributes:
        sample_id: The samples' ids in order: all integers or all strings.
        arrays: The model inputs by name, in call order, each (sample, ...); the name of a single input may be "".
        label: The samples' labels (integers or strings), or None when the source has none.
        pictures: uint8 (sample, height, width, channel) for display, not normalised; None for what is no picture.
        skipped: One sentence for each sample that could not be read and was left out.
    """

    sample_id: list[Any]
    arrays: dict[str, NDArray[Any]]
    label: list[Any] | None = None
    pictures: NDArray[np.uint8] | None = None
    skipped: tuple[str, ...] = ()


class Source(Protocol):
    """Samples that can be asked for by id or by number."""

    @property
    def sample_ids(self) -> Sequence[Any]:
        """The ids of all samples, in the source's order."""

    def take(self, which: int | Sequence[Any]) -> Inputs:
        """Read the first `which` samples, or those with the given ids in the given order.

        Raises:
            XaiError: An id does not exist, or (when opened strict) a sample cannot be read.
        """
