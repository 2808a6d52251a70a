"""The arguments of the callbacks: those of a run apart, and what makes no sense refused before a training begins."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from operator import index
from typing import Any

from xaicli.errors import UsageError, unknown, whole_number
from xaicli.heads.head import Task
from xaicli.recorder.config import epochs_kept, ignored_label, names_of_metrics, nth_epochs, run_address
from xaicli.recorder.run import Run

OF_RUN = (
    "name",
    "config",
    "keep_probs",
    "keep_tokens",
    "epoch_frequency",
    "ignore_label",
    "float64",
    "resume",
    "strict",
)
"""The arguments of `Run` that a callback hands on to the run it opens."""

CHOICES = ("every", "last", "never")
FACTS = ("text",)
_CHECKED = {
    "keep_probs": (epochs_kept, False),
    "epoch_frequency": (nth_epochs, 1),
    "ignore_label": (ignored_label, None),
    "float64": (names_of_metrics, ()),
}
"""What refuses an argument of a run, and what stands for it where it is not given."""


def settled(recording: type, run: Any, options: Mapping[str, Any], unnamed: tuple[Any, ...] = ()) -> dict[str, Any]:
    """The arguments of a `Recording`, those of the run it opens as `of_run`.

    Args:
        recording: The class whose arguments there are.
        run: An open run, of which a training that is resumed from a checkpoint begins another attempt, or where to
            record one.
        options: What the user gave beside it.
        unnamed: What the user gave beside it without a name.

    Raises:
        UsageError: An argument is unknown, of the wrong kind, or one of a run that is open already.
        XaiError: Of a few words it is none.
    """
    if unnamed:
        raise UsageError(
            f"XaiCallback takes the run alone without a name: {unnamed[0]!r} is of no argument",
            hint='XaiCallback("runs/exp1", keep_inputs=3)',
        )
    own = [name for name in inspect.signature(recording).parameters if name not in ("run", "of_run")]
    if stray := [name for name in options if name not in own and name not in OF_RUN]:
        refusal = unknown("argument", stray[0], sorted({*own, *OF_RUN}), where="XaiCallback")
        raise UsageError(refusal.message, hint=refusal.hint)
    of_run = {name: value for name, value in options.items() if name in OF_RUN}
    if isinstance(run, Run):
        if of_run:
            name = next(iter(of_run))
            raise UsageError(
                f"{name} is an argument of the run, which is open already",
                hint=f"Run(..., {name}={of_run[name]!r}), or give XaiCallback the folder in place of the run",
            )
    elif run is None:
        raise UsageError("XaiCallback needs a place to record into", hint='XaiCallback("runs/exp1")')
    else:
        run_address(run)
    for name, (check, default) in _CHECKED.items():
        try:
            check(of_run.get(name, default))
        except ValueError as error:
            raise UsageError(str(error), hint=f"XaiCallback(..., {name}=...) is handed on to Run") from None
    if "resume" in of_run and of_run["resume"] not in ("allow", "never", "must"):
        raise unknown("way to resume", of_run["resume"], ("allow", "never", "must"), plural="ways to resume")
    checked = {name: value for name, value in options.items() if name not in OF_RUN}
    _check(checked)
    return {**checked, "of_run": of_run}


def _check(given: dict[str, Any]) -> None:
    """
    Raises:
        UsageError: An argument is of the wrong kind.
        XaiError: Of a few words it is none.
    """
    for name in ("samples_fn",):
        if given.get(name) is not None and not callable(given[name]):
            _refuse(name, given[name], "lambda batch, output: {'sample_id': ..., 'loss': ...}")
    ids = given.get("ids")
    if ids is not None and (isinstance(ids, bool) or not (isinstance(ids, (str, int)) or callable(ids))):
        _refuse("ids", ids, '"image_id", the number of a part of the batch, or a function of it')
    task = given.get("task")
    if task is not None and str(task).partition(":")[0] not in tuple(Task):
        raise unknown("task", task, tuple(Task))
    facts = given.get("facts", ())
    if isinstance(facts, str):
        given["facts"] = facts = (facts,)
    if not isinstance(facts, Collection):
        _refuse("facts", facts, '("text",)')
    if stray := [fact for fact in facts if fact not in FACTS]:
        raise unknown("fact", stray[0], FACTS)
    whole_number("keep_inputs", given.get("keep_inputs", 0), least=0, hint="how many samples of each mode")
    for name in ("save_checkpoint", "collect_before", "keeps_order"):
        if not (isinstance(given.get(name, False), bool) or (name == "keeps_order" and given[name] is None)):
            _refuse(name, given[name], "True or False")
    if isinstance(given.get("tokenizer"), (str, bytes, bool, int, float)):
        _refuse(
            "tokenizer",
            given["tokenizer"],
            'the tokenizer itself, AutoTokenizer.from_pretrained("..."), or a vocabulary',
        )
    names = given.get("label_names")
    if names is not None and (isinstance(names, (str, Mapping)) or not isinstance(names, Collection)):
        _refuse("label_names", names, '["cat", "dog"]')
    if not isinstance(given.get("dataloader_args") or {}, Mapping):
        _refuse("dataloader_args", given["dataloader_args"], "{'batch_size': 64}")
    _check_epochs(given.get("collect_epochs", "last"))


def _check_epochs(chosen: Any) -> None:
    if isinstance(chosen, str):
        if chosen not in CHOICES:
            raise unknown("choice of epochs", chosen, CHOICES, plural="choices of epochs")
        return
    try:
        each = [index(chosen)] if not isinstance(chosen, Collection) else [index(epoch) for epoch in chosen]
    except TypeError:
        each = []
    if (not each and not isinstance(chosen, Collection)) or any(epoch < 0 for epoch in each):
        _refuse("collect_epochs", chosen, f"{', '.join(CHOICES)}, every n-th as a number, or a list of epochs")


def _refuse(name: str, value: Any, form: str) -> None:
    raise UsageError(f"{name}={value!r} makes no sense", hint=f"XaiCallback(..., {name}=...) takes {form}")
