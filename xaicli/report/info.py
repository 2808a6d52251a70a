"""The reports of what a thing holds: a run and where it came from, the runs below a folder, a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from xaicli.answer import Answer
from xaicli.report.charts import Tone
from xaicli.report.model import IN_CSV, IN_PAGE, Block, Cell, Column, Report, Section, Table, Text
from xaicli.report.numbers import count, in_words, listed, short
from xaicli.report.page import RunFacts, label_names_of, made, run_line
from xaicli.state.best import Checkpoint

if TYPE_CHECKING:
    from xaicli.checkpoint.inspection import Inspection

_TITLES = {"code": "Code", "packages": "Packages", "hardware": "Hardware", "model": "Model", "variables": "Variables"}
_LONG = 400
_MOST = 200
_MISSING = 8


def system_blocks(facts: RunFacts) -> Iterator[Block]:
    """Tables of everything that is known about how the run came to be."""
    if facts.config:
        yield _pairs("config", "Configuration", facts.config, folded=False)
    else:
        yield Text("No configuration was given to Run(config=...).", Tone.FAINT)
    environment = facts.environment
    models = environment.get("models")
    if isinstance(models, Mapping):
        yield from (_model(str(name), model) for name, model in models.items() if isinstance(model, Mapping))
    code = environment.get("code")
    if isinstance(code, Mapping) and code:
        yield _pairs("code", "Code", {_code_word(key): value for key, value in code.items()}, folded=False)
    else:
        yield Text("No git checkout was found where the code lies: the commit is not known.", Tone.FAINT)
    plain = {key: value for key, value in environment.items() if not isinstance(value, Mapping)}
    if plain:
        yield _pairs("environment", "Environment", plain)
    for key, value in environment.items():
        if isinstance(value, Mapping) and value and key not in ("code", "models"):
            yield _pairs(key, _TITLES.get(key, key.replace("_", " ").capitalize()), value)
    if facts.attempts:
        yield _attempts(facts)


def _model(name: str, facts: Mapping[str, Any]) -> Table:
    """A model in figures, and a row for each line that it prints of itself."""
    figures = [(key, _short(value)) for key, value in facts.items() if key != "summary"]
    lines = str(facts.get("summary") or "").splitlines()
    rows = (*figures, *((("layers" if i == 0 else ""), line) for i, line in enumerate(lines[:_MOST])))
    note = f"and {len(lines) - _MOST:,} more lines" if len(lines) > _MOST else ""
    columns = (Column("what"), Column("value"))
    return Table(
        f"system-model-{name}",
        "Model" if name == "model" else f"Model {name}",
        columns,
        rows,
        note,
        folded=True,
        terminal_rows=12,
        rest_in=IN_PAGE,
    )


def _code_word(key: str) -> str:
    return {"dirty": "differs from the commit", "diff_sha256": "sha-256 of the difference"}.get(key, key)


def _pairs(name: str, title: str, values: Mapping[str, Any], *, folded: bool = True) -> Table:
    flat = list(_flat(values))
    rows = tuple((key, _short(value)) for key, value in flat[:_MOST])
    note = f"and {len(flat) - _MOST:,} more" if len(flat) > _MOST else ""
    return Table(
        *(f"system-{name}", title, (Column("what"), Column("value")), rows, note),
        folded=folded,
        terminal_rows=12,
        rest_in=IN_PAGE,
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _short(value: Any) -> str:
    text = in_words(value)
    return text if len(text) <= _LONG else text[:_LONG] + " …"


def _attempts(facts: RunFacts) -> Table:
    rows = tuple(
        (a.attempt, a.started_at[:19].replace("T", " "), a.host, a.world_size, a.resumed_from_step)
        for a in facts.attempts
    )
    columns = (
        Column("attempt", Cell.INTEGER),
        Column("started"),
        Column("host"),
        Column("ranks", Cell.INTEGER),
        Column("resumed from step", Cell.INTEGER),
    )
    return Table("attempts", "Attempts", columns, rows, rest_in=IN_PAGE)


_STATE_COLUMNS = (
    Column("state"),
    Column("step", Cell.INTEGER),
    Column("epoch", Cell.INTEGER),
    Column("MB", Cell.NUMBER),
    Column("saved"),
)
_CHECKPOINT_COLUMNS = (
    Column("checkpoint"),
    Column("MB", Cell.NUMBER),
    Column("kept as"),
    Column("value", Cell.NUMBER),
)
_OF_EVERY = 2
"""How many of these columns every checkpoint has."""


def info_report(answer: Answer, facts: RunFacts | None = None) -> Report:
    """The page of `xai info`.

    Args:
        answer: Rows mode, ds_id, epochs, rows, metrics, and more.
        facts: The run.
    """
    rows = answer.data.to_dicts()
    metrics = list(dict.fromkeys(metric for row in rows for metric in row["metrics"]))
    sections = [Section("Modes", "modes", (_modes(rows),))]
    if metrics:
        sections.append(Section("Metrics", "metrics", (Text(", ".join(metrics)),)))
    if found := answer.extra.get("tables"):
        sections.append(Section("Tables", "tables", (_tables(found),)))
    if known := answer.extra.get("facts"):
        sections.append(Section("Facts", "facts", (_facts(known),)))
    if facts and (kept := tuple(_kept(facts))):
        sections.append(Section("States and checkpoints", "states", kept))
    if facts:
        sections.append(Section("System and traceability", "system", tuple(system_blocks(facts))))
    total = sum(row["rows"] for row in rows)
    sentence = f"{count(total, 'row')} in {listed(list(dict.fromkeys(row['mode'] for row in rows)))}."
    if task := answer.selection.get("task"):
        sentence += f" The task is {task}."
    return Report(
        name="info",
        title="What the run holds",
        run_line=run_line(answer, facts),
        label_names=label_names_of(facts),
        sentence=(sentence if rows else _of_tables(found or ())) + _state(answer.selection),
        sections=tuple(sections)
        if rows
        else (Section("Modes", "modes", (Text("No rows.", Tone.FAINT),)), *sections[1:]),
        made=made(answer),
        warnings=answer.warnings,
        tables={"info": lambda: answer.data},
    )


def _state(selection: Mapping[str, Any]) -> str:
    """Whether it goes on, or did not come to its end, as words behind others."""
    if selection.get("state") == "running":
        return " It is being recorded."
    if selection.get("state") != "crashed":
        return ""
    by = selection.get("ended_by")
    return f" The training has died of {by}." if by else " The training has died."


def _facts(found: Sequence[Mapping[str, Any]]) -> Table:
    columns = (Column("fact"), Column("type"), Column("samples", Cell.INTEGER), Column("values", Cell.INTEGER))
    rows = tuple((one["fact"], one["type"], one["samples"], one["values"]) for one in found)
    return Table("facts", "", columns, rows, "--label-key, --where and --by name them")


def _of_tables(found: Sequence[Mapping[str, Any]]) -> str:
    """What a run without samples of its own holds: objects, say, are rows of tables."""
    if not any(table["rows"] for table in found):
        return "No rows yet: training has not logged a sample, or nothing has been written."
    held = [f"{count(table['rows'], 'row')} of {table['name']}" for table in found]
    return f"No samples were logged; the run's tables have {listed(held)}."


def _tables(found: Sequence[Mapping[str, Any]]) -> Table:
    columns = (Column("table"), Column("rows", Cell.INTEGER), Column("columns"))
    rows = tuple((table["name"], table["rows"], ", ".join(table["columns"])) for table in found)
    ways = [way for table in found for way in table["ask"]]
    return Table("tables", "", columns, rows, f"asked by {listed([*ways, 'xai query'], 10, whole=True)}")


def _kept(facts: RunFacts) -> Iterator[Table]:
    """The saved states and the checkpoints, a table each."""
    if facts.states:
        rows = tuple(
            (s.path.name, s.step, s.epoch, s.bytes / 1e6, s.saved_at[:16].replace("T", " ")) for s in facts.states
        )
        yield Table("states", "Saved states", _STATE_COLUMNS, rows, rest_in=IN_PAGE)
    if facts.checkpoints:
        # Of checkpoints that no rule kept there is nothing but their names and sizes to say.
        n_columns = len(_CHECKPOINT_COLUMNS) if any(file.metric for file in facts.checkpoints) else _OF_EVERY
        rows = tuple(_checkpoint(file)[:n_columns] for file in facts.checkpoints)
        yield Table("checkpoints", "Checkpoints", _CHECKPOINT_COLUMNS[:n_columns], rows, rest_in=IN_PAGE)


def _checkpoint(file: Checkpoint) -> tuple[Any, ...]:
    kept_as = f"{'best' if file.is_best else 'good'} {file.metric}" if file.metric else ""
    return file.path.name, file.bytes / 1e6, kept_as, file.value


def _modes(rows: list[dict[str, Any]]) -> Table:
    columns = (
        Column("mode"),
        Column("data set"),
        Column("epochs"),
        Column("rows", Cell.INTEGER),
        Column("last step", Cell.INTEGER),
        Column("files", Cell.INTEGER),
        Column("missing epochs"),
    )
    shown = tuple(
        (
            row["mode"],
            row["ds_id"] or "–",
            _epochs(row),
            row["rows"],
            row.get("last_step"),
            row.get("files"),
            _missing(row),
        )
        for row in rows
    )
    return Table("modes", "", columns, shown, rest_in=IN_CSV)


def _missing(row: Mapping[str, Any]) -> str:
    """The first missing epochs, and how many more there are."""
    gaps = row.get("gaps") or ()
    n = row.get("n_gaps", len(gaps))
    if n <= _MISSING:
        return listed([str(epoch) for epoch in gaps], _MISSING)
    first = ", ".join(str(epoch) for epoch in gaps[: _MISSING - 1])
    return f"{first} and {n - _MISSING + 1:,} more"


def _epochs(row: Mapping[str, Any]) -> str:
    epochs = row["epochs"]
    if len(epochs) < 2:
        return str(epochs[0]) if epochs else "none"
    by = f" by {row['stride']}" if row["stride"] > 1 else ""
    return f"{epochs[0]} to {epochs[-1]}{by} ({len(epochs):,})"


def _of_runs(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What the figures of a list of runs mean, where one may be missed."""
    if any(row["rows"] == 0 for row in rows):
        yield "rows: of samples; xai info RUN says what its tables hold"
    if any(row["rows"] and row["accuracy"] is None for row in rows):
        yield "no accuracy: no predicted classes, or several data sets, which xai confusion RUN tells one by one"


def runs_report(answer: Answer) -> Report:
    """The page of `xai ls`.

    Args:
        answer: Rows `{run, name, created_at, modes, epochs, rows, accuracy, accuracy_mode, state, seconds, metrics,
            problem}`.
    """
    rows = answer.data.to_dicts()
    unreadable = sum(row["problem"] is not None for row in rows)
    folder = "this folder" if answer.run == "." else f"{answer.run}/" if answer.run.endswith(".") else answer.run
    sentence = f"{count(len(rows), 'run')} at or below {folder}"
    table = Table(
        name="runs",
        title="Runs",
        columns=(
            Column("run"),
            Column("recorded", aside=True),
            Column("modes", aside=True),
            Column("epochs", Cell.INTEGER),
            Column("rows", Cell.INTEGER, aside=True),
            Column("accuracy"),
            Column("state"),
            Column("took"),
            *([Column("problem")] if unreadable else []),
        ),
        rows=tuple(
            (
                row["run"],
                (row["created_at"] or "")[:16].replace("T", " "),
                ", ".join(row["modes"] or ()),
                row["epochs"],
                row["rows"],
                "" if row["accuracy"] is None else f"{short(row['accuracy'])} {row['accuracy_mode']}",
                row["state"] or "",
                _duration(row["seconds"]),
                *([row["problem"] or ""] if unreadable else []),
            )
            for row in rows
        ),
        note="; ".join(_of_runs(rows)),
        terminal_rows=200,
        rest_in=IN_CSV,
    )
    return Report(
        name="ls",
        title="Runs",
        run_line=run_line(answer, None),
        sentence=sentence + (f"; {unreadable} cannot be read." if unreadable else "."),
        sections=(Section("Runs", "runs", (table,)),),
        made=made(answer),
        warnings=answer.warnings,
        tables={"ls": lambda: answer.data},
    )


def _duration(seconds: float | None) -> str:
    """Seconds as people say them: <1 s, 42 s, 3 min, 5.1 h, 2.3 d."""
    if seconds is None:
        return ""
    if seconds < 1:
        return "<1 s"
    for unit, size, within in (("s", 1, 90), ("min", 60, 90 * 60), ("h", 3600, 36 * 3600)):
        if seconds < within:
            value = seconds / size
            return f"{value:.0f} {unit}" if unit != "h" or value >= 10 else f"{value:.1f} h"
    return f"{seconds / 86400:.1f} d"


_KINDS = {
    "xai": "a checkpoint of xai",
    "state_dict": "a state dict",
    "training_dict": "a training script's checkpoint",
    "lightning": "a Lightning checkpoint",
    "safetensors": "safetensors",
    "hugging_face": "a Hugging Face folder",
    "exported": "an exported graph",
    "torchscript": "TorchScript",
    "pickled_module": "a pickle",
}


def checkpoint_report(found: Inspection) -> Report:
    """The page of `xai checkpoint inspect`.

    Args:
        found: What the inspection found, without running any of it.
    """
    facts = found.facts
    columns = (Column("tensor"), Column("dtype"), Column("shape"), Column("bytes", Cell.INTEGER))
    rows = tuple((t.name, t.dtype, " x ".join(map(str, t.shape)) or "one value", t.n_bytes) for t in found.tensors)
    total = sum(tensor.n_bytes for tensor in found.tensors)
    lines = [Text(f"{name}: {value}") for name, value in _described(found)]
    if found.refusal:
        lines.append(Text(f"refused: it holds {found.refusal}", Tone.BAD))
    lines += [Text(f"would run: {thing}", Tone.BAD) for thing in found.runs[:20]]
    if not found.runs and not found.refusal:
        lines.append(Text("would run: nothing of its own", Tone.GOOD))
    table = Table("tensors", f"{len(rows)} tensors, {total:,} bytes", columns, rows)
    sections = [Section("What it is", "facts", tuple(lines))]
    if rows:
        sections.append(Section("Tensors", "tensors", (table,)))
    return Report(
        name="checkpoint",
        title=f"{facts.path.name}: {_KINDS[facts.kind]}",
        run_line=f"{found.n_bytes:,} bytes, sha256 {facts.sha256}",
        sentence=f"It loads {found.verdict}.",
        sections=tuple(sections),
        made=(),
    )


def _described(found: Inspection) -> Iterator[tuple[str, str]]:
    facts = found.facts
    names, shapes, dtypes = facts.input_names or (), facts.input_shapes or (), facts.input_dtypes or ()
    for position, shape in enumerate(shapes):
        name = names[position] if position < len(names) else str(position + 1)
        dtype = dtypes[position] if position < len(dtypes) else ""
        yield f"input {name}", f"{' x '.join(map(str, shape))} {dtype}".strip()
    if facts.static_batch is not None:
        yield "batches", f"of {facts.static_batch} only"
    if facts.label_names:
        more = f" and {len(facts.label_names) - 8} more" if len(facts.label_names) > 8 else ""
        yield "labels", ", ".join(facts.label_names[:8]) + more
    for name in ("task", "epoch", "step", "input_range", "mean", "std", "arch"):
        if (value := getattr(facts, name)) is not None:
            yield name.replace("_", " "), str(value)
    if len(found.weight_sets) > 1:
        yield "weights", ", ".join(found.weight_sets)
    if found.operators:
        n_kinds = len(found.operators)
        yield "graph", f"{sum(found.operators.values())} operations of {n_kinds} kinds, all of them torch's own"
    for note in facts.notes:
        yield "note", note
