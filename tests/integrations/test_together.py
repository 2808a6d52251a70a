"""Several loaders that make each batch together: what stands one below the other in one forward is of its own set."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

import xaicli
from tests.integrations.trainers import quiet_trainer, said_by_xai

lightning = pytest.importorskip("lightning.pytorch", reason="Lightning is not installed")

SEED = torch.Generator().manual_seed(0)
X = {"real": torch.randn(20, 4, generator=SEED), "made": torch.randn(15, 4, generator=SEED)}
Y = {name: (x[:, :3] > 0).sum(1) % 3 for name, x in X.items()}
ALIKE = {name: torch.ones(len(x), dtype=torch.long) for name, x in X.items()}
BASE = {"real": 0, "made": 100}
SIZES = {"real": 8, "made": 6}


def trained(
    folder: Path, step: Any, *, listed: bool = False, labels: Any = None
) -> tuple[pl.DataFrame, nn.Module, list[str], int]:
    """The rows of a training that changes nothing, its net, what xai said, and how many rows were dropped."""
    from xaicli.integrations.lightning import XaiCallback

    torch.manual_seed(0)
    net = nn.Linear(4, 3)

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            del batch_idx
            real, made = batch if listed else (batch["real"], batch["made"])
            return step(self.net, real, made)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    labels = Y if labels is None else labels
    loaders = {
        name: DataLoader([(BASE[name] + i, x[i], labels[name][i]) for i in range(len(x))], batch_size=SIZES[name])
        for name, x in X.items()
    }
    callback = XaiCallback(folder / "run", save_checkpoint=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        given = list(loaders.values()) if listed else loaders
        quiet_trainer(callback, folder, max_epochs=1).fit(Module(), given)
    found = folder / "run" / "data"
    rows = xaicli.open_run(folder / "run").scan(mode="all").collect() if found.exists() else pl.DataFrame()
    return rows, net, said_by_xai(caught), callback.run.stats()["rows_dropped"]


def are_of_their_sets(rows: pl.DataFrame, net: nn.Module, names: dict[str, str], labels: Any = None) -> bool:
    """Whether each sample's first row has its own label and loss, in its own set."""
    labels = Y if labels is None else labels
    assert set(rows["ds_id"]) == set(names.values())
    for name, ds_id in names.items():
        own = rows.filter(pl.col("ds_id") == ds_id).unique("sample_id").sort("sample_id")
        with torch.no_grad():
            each = functional.cross_entropy(net(X[name]), labels[name], reduction="none")
        assert own["sample_id"].to_list() == [BASE[name] + i for i in range(len(X[name]))]
        assert own["label"].to_list() == labels[name].tolist()
        assert own["loss"].to_list() == pytest.approx(each.tolist(), abs=1e-5)
    return True


def plain(net: Any, real: Any, made: Any) -> Any:
    return functional.cross_entropy(net(torch.cat([real[1], made[1]])), torch.cat([real[2], made[2]]))


def made_first(net: Any, real: Any, made: Any) -> Any:
    return functional.cross_entropy(net(torch.cat([made[1], real[1]])), torch.cat([made[2], real[2]]))


def with_logits(net: Any, real: Any, made: Any) -> Any:
    logits = net(torch.cat([real[1], made[1]]))
    return {"loss": functional.cross_entropy(logits, torch.cat([real[2], made[2]])), "logits": logits}


def with_logits_by_loader(net: Any, real: Any, made: Any) -> Any:
    found = with_logits(net, real, made)
    n = len(real[1])
    return {**found, "logits": {"real": found["logits"][:n], "made": found["logits"][n:]}}


NAMED = {"real": "real", "made": "made"}
LISTED = {"real": "", "made": "1"}


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("step", [plain, made_first, with_logits, with_logits_by_loader], ids=lambda one: one.__name__)
def test_what_loaders_gave_is_of_its_own_set(tmp_path: Path, step: Any, listed: bool) -> None:
    rows, net, said, dropped = trained(tmp_path, step, listed=listed)
    assert are_of_their_sets(rows, net, LISTED if listed else NAMED)
    assert (said, dropped) == ([], 0)


@pytest.mark.parametrize("step", [plain, made_first], ids=lambda one: one.__name__)
def test_sets_with_one_label_are_told_by_what_the_model_was_given(tmp_path: Path, step: Any) -> None:
    rows, net, said, dropped = trained(tmp_path, step, labels=ALIKE)
    assert are_of_their_sets(rows, net, NAMED, ALIKE)
    assert (said, dropped) == ([], 0)


@pytest.mark.parametrize("listed", [False, True])
def test_sets_that_nothing_tells_apart_are_asked_for_with_the_line_that_records_them(
    tmp_path: Path, listed: bool
) -> None:
    """A loss by hand."""

    def asked(net: Any, real: Any, made: Any) -> Any:
        found = net(torch.cat([real[1], made[1]])).log_softmax(1)
        return -found.gather(1, torch.cat([real[2], made[2]])[:, None]).mean()

    line = (
        "return {'loss': loss, 'logits': [logits_0, logits_1]}"
        if listed
        else "return {'loss': loss, 'logits': {'real': logits_real, 'made': logits_made}}"
    )

    def said_so(net: Any, real: Any, made: Any) -> Any:
        logits, loss = net(torch.cat([real[1], made[1]])), asked(net, real, made)
        first, second = logits[: len(real[1])], logits[len(real[1]) :]
        names = {"logits_0": first, "logits_1": second, "logits_real": first, "logits_made": second, "loss": loss}
        return eval(line.removeprefix("return "), {}, names)  # noqa: S307

    rows, _, said, dropped = trained(tmp_path / "asked", asked, listed=listed)
    assert (len(rows), dropped > 0) == (0, True)
    assert [f"end it with {line}" in one for one in said] == [True]
    rows, net, said, dropped = trained(tmp_path / "said", said_so, listed=listed)
    assert are_of_their_sets(rows, net, LISTED if listed else NAMED)
    assert (said, dropped) == ([], 0)
