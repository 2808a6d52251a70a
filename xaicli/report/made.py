"""*How this was made*: the command that asks the same question again, its rules, and what was counted."""

from __future__ import annotations

from xaicli.answer import Answer
from xaicli.report.facts import as_list
from xaicli.report.numbers import count
from xaicli.vocabulary import Duplicates

_SHOWN = 12
_GIVEN = frozenset({"query", "ls", "scalars", "checkpoint inspect", "compact"})
"""Questions that count what they give, since there is no one number of rows behind it."""
_DUPLICATES: dict[str, str] = {
    Duplicates.ALL: "each of them counts, too",
    Duplicates.ERROR: "any would have been refused",
}


def made(answer: Answer, *rules: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    """The pairs (what, in words): the command, the selection, rules of the question, and every count.

    Args:
        answer: The answer shown.
        rules: Further pairs, between the selection and the counts.
    """
    counts = answer.counts
    said: list[tuple[str, str]] = [("command", answer.command_line()), *_selection(answer), *rules]
    if counts.rows is not None:
        said.append(("rows of the answer" if answer.command in _GIVEN else "rows read", count(counts.rows, "row")))
    if counts.non_finite is not None:
        said.append(("non-finite values", f"{counts.non_finite:,}, left out of every statistic"))
    if counts.duplicates is not None and answer.selection.get("table"):
        reduce = answer.selection.get("reduce", "mean")
        said.append(("further rows of a sample", f"{counts.duplicates:,}; of several rows of one sample the {reduce}"))
    elif counts.duplicates is not None:
        rule = _DUPLICATES.get(str(answer.selection.get("duplicates")), "of each sample and epoch the last one counts")
        said.append(("duplicate rows", f"{counts.duplicates:,}; {rule}"))
    if counts.dropped is not None:
        said.append(("rows dropped while recording", f"{counts.dropped:,}"))
    if counts.stale is not None:
        said.append(("samples absent from the last epoch", f"{counts.stale:,}"))
    if counts.taken_back is not None:
        said.append(("rows taken back by a later attempt", f"{counts.taken_back:,}; --attempts all counts them"))
    if counts.ignored is not None:
        said.append(("ignored labels", f"{counts.ignored:,}, kept as missing"))
    if counts.damaged is not None:
        said.append(("damaged files left out", ", ".join(counts.damaged) or "none"))
    return tuple(said)


def _selection(answer: Answer) -> list[tuple[str, str]]:
    said = []
    for key, value in answer.selection.items():
        values = [str(item) for item in as_list(value)]
        if not values or values == [""] or value == {}:
            continue
        more = f" and {len(values) - _SHOWN:,} more" if len(values) > _SHOWN else ""
        said.append((key.replace("_", " "), ", ".join(values[:_SHOWN]) + more))
    return said
