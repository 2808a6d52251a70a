"""What a model made of a batch, what that means, and where in the batch its labels are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import torch

from xaicli.heads.decision import NOTHING, Known, OriginOf, decide
from xaicli.heads.head import Head, Task
from xaicli.heads.outputs import misplaced, tensor_at

Layer = str | int
"""A hidden layer by its name in `named_modules()`, or its position there."""

TARGETS = frozenset({"label", "labels", "label_ids", "target", "targets", "y"})
"""The entries of a dict batch that are taken for labels, never for inputs."""

_PLAIN = (str, bytes, int, float, complex, list, tuple, set, frozenset, torch.nn.Module)


@dataclass(frozen=True)
class Company:
    """What a model made of a few samples, and of fewer of them: it tells which axis is that of the samples.

    Attributes:
        whole: The output for a few samples.
        less: That for the first of them.
        hidden: The chosen layers' outputs in both.
        n: How many samples a few are.
        fewer: How many of them the other is for.
    """

    whole: Any
    less: Any
    hidden: Mapping[Layer, tuple[Any, Any]]
    n: int
    fewer: int

    def refuse_misplaced(self, where: str) -> None:
        """That the samples are the first axis of a part of the output.

        Raises:
            XaiError: They are another one.
        """
        self._refuse(
            tensor_at(self.whole, where), tensor_at(self.less, where), f"the model's output{where and f' {where}'}"
        )

    def refuse_misplaced_layer(self, layer: Layer) -> None:
        """That the samples are the first axis of what a layer gives.

        Raises:
            XaiError: They are another one.
        """
        self._refuse(*self.hidden.get(layer, (None, None)), f"what layer {layer} gives")

    def _refuse(self, one: Any, other: Any, what: str) -> None:
        if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
            return
        wrong = misplaced(one, other, self.n, self.fewer, what)
        # What is first an axis of the samples, too, is a matter of what is made of it: that is told, not refused.
        if wrong is not None and (len(one), len(other)) != (self.n, self.fewer):
            raise wrong


@dataclass(frozen=True)
class PredictorOutput:
    """What a model made of a batch.

    The object also behaves as `forward` itself: its attributes, items, arithmetic, order and every torch function, so
    that a collector may be written as if it were handed the model's output.

    Attributes:
        forward: The model's output, floating tensors in float32 at least.
        hidden_layers: The chosen layers' outputs under the name or number each was asked for by.
        example_id: The rows of the table the batch is made of.
        origin: What made a tensor, while the pass watches the model's operations; see `xaicli.heads`.
        known: What the model's configuration and checkpoint say of its output.
        heads: What outputs were found to mean in this pass, by what was asked.
        company: What the model made of a few samples and of fewer, where that is known.
    """

    forward: Any
    hidden_layers: Mapping[Layer, Any] = field(default_factory=dict)
    example_id: Sequence[int] = ()
    origin: OriginOf | None = None
    known: Known = NOTHING
    heads: dict[Any, Head] = field(default_factory=dict)
    company: Company | None = None

    @classmethod
    def of(cls, given: Any, like: PredictorOutput | None = None) -> PredictorOutput:
        """A model's bare output, or what a `preprocess_fn` made of one, as a `PredictorOutput`."""
        if isinstance(given, cls):
            return given
        return replace(like, forward=given, company=None) if like is not None else cls(given)

    def head(
        self,
        *,
        task: str | None = None,
        labels: Any = None,
        classes: int | None = None,
        expected: Collection[Task] = (),
    ) -> Head:
        """What the output means, decided by the first batch's operations and labels' kind and kept for the pass.

        Args:
            task: What the caller says.
            labels: The batch's labels.
            classes: How many classes there are, where the caller knows.
            expected: The tasks the caller can do something with.

        Raises:
            XaiError: It cannot be decided; the hint asks for the task.
        """
        asked = (task, classes, frozenset(expected), labels is None)
        if asked not in self.heads:
            known = self.known if classes is None or self.known.classes else replace(self.known, classes=classes)
            known = known if known.source else replace(known, source="the classes")
            head = decide(self.forward, origin=self.origin, task=task, labels=labels, known=known, expected=expected)
            if self.company is not None:
                self.company.refuse_misplaced(head.where)
            self.heads[asked] = head
        return self.heads[asked]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.forward, name)

    def __getitem__(self, key: Any) -> Any:
        return self.forward[key]

    def __len__(self) -> int:
        return len(self.forward)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.forward)

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def unwrap(value: Any) -> Any:
            if isinstance(value, (list, tuple)):
                return type(value)(unwrap(item) for item in value)
            return value.forward if isinstance(value, PredictorOutput) else value

        return function(*unwrap(args), **{name: unwrap(value) for name, value in (kwargs or {}).items()})


def _forwarded(name: str) -> Callable[..., Any]:
    def operator(self: PredictorOutput, *operands: Any) -> Any:
        values = (value.forward if isinstance(value, PredictorOutput) else value for value in operands)
        return getattr(self.forward, name)(*values)

    return operator


# Python looks operators up on the class, never by __getattr__.
_OPERATORS: tuple[str, ...] = ("add", "sub", "mul", "truediv", "pow", "matmul", "radd", "rsub", "rmul", "rtruediv")
_OPERATORS += ("neg", "abs", "lt", "le", "gt", "ge")
for _name in _OPERATORS:
    setattr(PredictorOutput, f"__{_name}__", _forwarded(f"__{_name}__"))


def first_tensor(output: Any) -> torch.Tensor | None:
    """The first tensor of a module's output, which may be a tuple, a dict or a transformers output."""
    if isinstance(output, torch.Tensor):
        return output
    items: Any = output.values() if isinstance(output, Mapping) else output if isinstance(output, (list, tuple)) else ()
    for item in items:
        if (found := first_tensor(item)) is not None:
            return found
    return None


def labels_of(batch: Any) -> Any:
    """The labels in a batch: the second of a tuple, or the entry of a dict named like one; None without."""
    if isinstance(batch, Mapping):
        return next((batch[key] for key in batch if key in TARGETS), None)
    return batch[1] if isinstance(batch, (list, tuple)) and len(batch) > 1 else None


def entries_of(batch: Any) -> Mapping[str, Any] | None:
    """The parts of a batch by their names: a dict, a dataclass, a named tuple, an object with attributes or keys.

    None of what has no names: a tensor, a list, a tuple.
    """
    if isinstance(batch, Mapping):
        return batch
    names = getattr(batch, "_fields", None)
    if isinstance(batch, tuple) and names is not None:
        return dict(zip(names, batch, strict=True))
    if isinstance(batch, _PLAIN) or batch is None or isinstance(batch, type) or hasattr(batch, "dtype"):
        return None
    if is_dataclass(batch):
        return {one.name: getattr(batch, one.name, None) for one in fields(batch)}
    try:
        if callable(getattr(batch, "keys", None)) and hasattr(batch, "__getitem__"):
            return {str(key): batch[key] for key in batch.keys()}  # noqa: SIM118 - such objects may have no __iter__
        held = vars(batch) if hasattr(batch, "__dict__") else {name: getattr(batch, name) for name in batch.__slots__}
        return {name: part for name, part in held.items() if not name.startswith("_")} or None
    except Exception:  # another's object: what it does when it is asked is not known
        return None


def taken(values: Any, places: Sequence[int | None], n: int | None = None) -> Any:
    """The rows of a batch, or of a part of it, at these places; None where there is none, of what is a list.

    Args:
        values: Tensors and lists of a row a sample, in whatever holds them.
        places: Which rows.
        n: How many samples there are; as many as places where None.
    """
    n = len(places) if n is None else n
    if isinstance(values, torch.Tensor):
        return values[[place or 0 for place in places]] if values.ndim and len(values) == n else values
    if (entries := entries_of(values)) is not None:
        cut = {name: taken(value, places, n) for name, value in entries.items()}
        return type(values)(*cut.values()) if isinstance(values, tuple) else cut
    if (
        type(values) is list
        and len(values) == n
        and not any(isinstance(v, torch.Tensor) and v.shape[:1] == (n,) for v in values)
    ):
        return [None if place is None else values[place] for place in places]
    return type(values)(taken(v, places, n) for v in values) if type(values) in (list, tuple) else values


_WIDE = ("cpu", "cuda", "meta")


def widened(output: Any) -> Any:
    """The output with half-precision tensors in float32, so that metrics are computed in it; on CPU or CUDA."""
    if isinstance(output, torch.Tensor):
        if output.device.type not in _WIDE:  # mps, for one, has no double precision
            output = output.cpu()
        return output.float() if output.dtype in (torch.float16, torch.bfloat16) else output
    if type(output) in (list, tuple):
        return type(output)(widened(item) for item in output)
    if isinstance(output, Mapping):
        for key, value in list(output.items()):
            wide = widened(value)
            if wide is not value:
                output[key] = wide  # type: ignore[index]
    return output


def none_of_the_classes(labels: Counter[str], total: int) -> tuple[str, ...]:
    """The sentence about labels that are none of the classes, in the order in which they are counted; none without.

    Args:
        labels: Each such label as it is shown, and how many samples have it.
        total: The samples.
    """
    if not labels:
        return ()
    shown = ", ".join(list(labels)[:5]) + (", ..." if len(labels) > 5 else "")
    return (
        f"{labels.total()} of {total} labels are none of the model's classes ({shown}): "
        "what needs a label is missing for them",
    )
