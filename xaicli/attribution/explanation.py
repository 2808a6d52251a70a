"""What an answer about saliency holds: one explanation per (checkpoint, sample, output, target), ready to be shown.

Frozen plain data of numpy arrays and Python values, without torch; pages, pictures, JSON and `maps.npz` are made of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

REFINEMENT = ("smint", "integrated", "smoothgrad", "gradient")
"""The seed's methods from the most refined: the first one computed makes the overlay."""


class InputKind(StrEnum):
    """How an input is drawn."""

    IMAGE = "image"
    """Pictures: the input, a map, the overlay."""
    SIGNAL = "signal"
    """A curve with its map below or as colour."""
    TABULAR = "tabular"
    """One bar a feature."""
    TOKENS = "tokens"
    """Text, each token on a ground as strong as its map."""


@dataclass(frozen=True)
class InputView:
    """One input of one sample as people see it.

    Attributes:
        name: The input's name; "" for the only one.
        picture: uint8 (H, W, C) with C 1 or 3, de-normalised; None for what is no image.
        values: The input itself, one sample without the batch axis; for signals (channels, length) or (length,), for
            tabular rows (features,).
        tokens: The text of each token, when `kind` is TOKENS; its number where the text is not known.
        special: The places of tokens that a tokenizer put among the words; None where that is not known.
        padding: The places that only fill a text up, by its attention mask: they are no words.
        features: What the features of a tabular row are called, where that is known.
    """

    name: str
    kind: InputKind
    picture: Bytes | None = None
    values: Floats | None = None
    tokens: tuple[str, ...] = ()
    special: frozenset[int] | None = None
    padding: frozenset[int] = frozenset()
    features: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """The text of each token, "" where padding stands."""
        return tuple("" if place in self.padding else text for place, text in enumerate(self.tokens))


@dataclass(frozen=True)
class SaliencyMap:
    """One method's map of one input of one sample.

    Attributes:
        method: "gradient", "smoothgrad", "integrated", "smint", "gradcam", or the name of a Captum method.
        input: The input's name.
        values: (H, W) in [0, 1], scaled for itself: brightness does not compare between maps. (1, length) for signals,
            tabular rows and tokens.
        attribution: Signed, of the input's shape, one sample.
        flat: The map has no contrast and is all zero.
    """

    method: str
    input: str
    values: Floats
    attribution: Floats
    flat: bool = False


@dataclass(frozen=True)
class Trust:
    """How far to trust one method's maps of one sample.

    Attributes:
        delta: Relative completeness error, |sum of attributions - (f(x) - f(baseline))| / |f(x) - f(baseline)|; None
            for methods that promise no completeness.
        agreement: Rank correlation of the maps from two halves of the random draws; None where there are no two, as of
            methods that draw nothing.
        flat: All of the sample's maps of this method are flat.
        draws, steps: Of the maps, as they are in the end: how many random draws, the clean input included, and steps
            of a path; None where the method has none.
        settled: With a tolerance, whether delta and agreement are within it; None without, and where there is neither.
        quality: `--evaluate`: insertion and deletion AUC, the same of a random map, infidelity, sensitivity; by name.
    """

    delta: float | None
    agreement: float | None
    flat: bool
    quality: Mapping[str, float | None] = field(default_factory=dict)
    draws: int | None = None
    steps: int | None = None
    settled: bool | None = None


@dataclass(frozen=True)
class Explanation:
    """Everything about one (checkpoint, sample, output, target).

    Attributes:
        sample_id: The caller's id.
        target: The output index explained; -1 when a function of the outputs is explained.
        target_name, label_name, prediction_name: Names to show; the number as text where there is no name.
        label_prob, top_prob: Probability of the label and of the prediction.
        top: The three most probable classes, (name, probability).
        inputs: One view per input.
        maps: Per method and input, in the order methods were asked for.
        trust: Per method.
        evaluations: The gradient evaluations that the maps are of.
        checkpoint: The column, an index into `Saliency.checkpoints`.
        output: The key or index of the model's output; "" for the only one.
        correct: Whether the prediction is the label; None without a label, or where nothing can be right or wrong.
        n_classes: How many classes there are; 0 where there are none.
        mode, ds_id: Of which mode and data set of a run the sample is; None where nothing says it.
        stands_for: The (mode, ds_id) of the samples that an input stands for which was kept without a mode, where
            these are not all with its id.
    """

    sample_id: int | str
    label: int | float | str | list[int] | None
    target: int
    prediction: int | float | None
    label_prob: float | None
    top_prob: float | None
    top: tuple[tuple[str, float], ...]
    target_name: str
    label_name: str
    prediction_name: str
    inputs: tuple[InputView, ...]
    maps: tuple[SaliencyMap, ...]
    trust: Mapping[str, Trust]
    evaluations: int
    checkpoint: int = 0
    output: str = ""
    correct: bool | None = None
    n_classes: int = 0
    mode: str | None = None
    ds_id: str | None = None
    stands_for: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> tuple[str | None, str | None, int | str]:
        """What tells the sample from all others: one id may be of a sample in each mode and data set."""
        return self.mode, self.ds_id, self.sample_id

    @property
    def place(self) -> str:
        """Its mode and data set in words; "" where nothing says them."""
        return " ".join(filter(None, (self.mode, self.ds_id)))

    def map_of(self, method: str, input_name: str) -> SaliencyMap | None:
        """The map of one method and input, or None."""
        return next((m for m in self.maps if (m.method, m.input) == (method, input_name)), None)


@dataclass(frozen=True)
class CheckpointColumn:
    """One checkpoint of the answer: a column when there are several."""

    name: str
    path: str = ""
    sha256: str = ""
    epoch: int | None = None
    step: int | None = None


@dataclass(frozen=True)
class SanityStep:
    """Cascading randomisation down to one layer: rank correlation of the maps with those of the trained model."""

    layer: str
    similarity: Mapping[str, float]
    """Mean over samples, per method."""
    checkpoint: int = 0
    output: str = ""
    """Whose maps they are, as of an explanation."""
    is_used: bool = True
    """Whether what is explained depends on the layer: else its maps stay the same, whatever the method."""


@dataclass(frozen=True)
class Change:
    """How one sample's map moved from one checkpoint to the next."""

    sample_id: int | str
    target: int
    method: str
    to_checkpoint: int
    """The later of the two; the earlier is the column before."""
    correlation: float | None
    """Rank correlation of the two maps: 1 means that the attention stayed."""
    output: str = ""
    """The key or index of the model's output; "" for the only one."""
    mode: str | None = None
    ds_id: str | None = None


@dataclass(frozen=True)
class Saliency:
    """The whole answer.

    Attributes:
        explanations: Ordered by sample, then output and target, then checkpoint.
        methods: In the order asked for.
        overlay: The method of the overlay: the most refined one computed.
        maps: {method: {input: (explanation, H, W)}}, what the explanations' maps are rows of.
        attributions: The same for the signed values, (explanation, ...).
        checkpoints: One or more columns, in training order.
        changes: From each checkpoint to the next; empty with one checkpoint.
        sanity: `--sanity`, from the output down to the input.
        settings: How the maps were made: {"smoothing": 25, ...}, for *how this was made*.
        notes: Lines to be shown to the reader: what was recognised, what could not be done.
        skipped: Inputs that could not be read, one line each.
    """

    explanations: tuple[Explanation, ...]
    methods: tuple[str, ...]
    overlay: str
    maps: Mapping[str, Mapping[str, Floats]] = field(default_factory=dict)
    attributions: Mapping[str, Mapping[str, Floats]] = field(default_factory=dict)
    checkpoints: tuple[CheckpointColumn, ...] = (CheckpointColumn(""),)
    changes: tuple[Change, ...] = ()
    sanity: tuple[SanityStep, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    @property
    def places(self) -> list[tuple[str | None, str | None]]:
        """The modes and data sets of the samples."""
        return list(dict.fromkeys(e.key[:2] for e in self.explanations))
