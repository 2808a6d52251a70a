"""Two processes of one training: each records its share, and every sample is there."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch

import xaicli
from tests.integrations.test_watched import MAPPED, Own, Y, is_by

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch has no distributed package")

LIGHTNING = """
import sys, torch, logging, warnings
import lightning.pytorch as lightning
from torch.nn import functional
from torch.utils.data import DataLoader
from tests.integrations.test_watched import MAPPED, N, OTHER, Own, X, Y
from xaicli.integrations.lightning import XaiCallback
warnings.simplefilter("ignore")
warnings.filterwarnings("always", message="xai")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

class Net(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Linear(4, 2)

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        return functional.cross_entropy(self(batch[1]), batch[2])

    def validation_step(self, batch, batch_idx):
        self(batch[1])

    def test_step(self, batch, batch_idx):
        self(batch[1])

    def predict_step(self, batch, batch_idx):
        return self(batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

x = torch.randn(21, 4, generator=torch.Generator().manual_seed(0))
data = [(i, x[i], int(x[i, 0] > 0)) for i in range(21)]
trainer = lightning.Trainer(max_epochs=2, accelerator="cpu", devices=2, strategy="ddp", logger=False,
    enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    callbacks=[XaiCallback(sys.argv[1], save_checkpoint=False)])
net, loader = Net(), DataLoader(data, batch_size=4)
trainer.fit(net, DataLoader(data, batch_size=4, shuffle=True), loader)
trainer.test(net, loader, verbose=False)
trainer.validate(net, loader, verbose=False)
trainer.predict(net, loader)

class Watched(lightning.LightningModule):
    # A criterion that the step calls inside of the wrapper is none of the model's own.

    def __init__(self, way):
        super().__init__()
        self.model, self.way = Own(), way

    def training_step(self, batch, batch_idx):
        out = self.model(x=batch["x"], labels=batch["label"])
        functional.cross_entropy(out["logits"].detach(), batch["other"])
        if self.way == "own":
            return out["loss"]
        return functional.cross_entropy(out["logits"], batch["mapped"]) + 0.0 * out["loss"]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)

data = [{"sample_id": i, "x": X[i], "label": Y[i], "other": OTHER[i], "mapped": MAPPED[i]} for i in range(N)]
for way in ("own", "both"):
    lightning.Trainer(max_epochs=1, accelerator="cpu", devices=2, strategy="ddp", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[XaiCallback(f"{sys.argv[1]}-{way}", save_checkpoint=False)]).fit(
            Watched(way), DataLoader(data, batch_size=4))
"""

TRANSFORMERS = """
import sys, torch, transformers, warnings
from xaicli.integrations.transformers import XaiCallback
warnings.simplefilter("ignore")
warnings.filterwarnings("always", message="xai")
torch.manual_seed(0)
tokens = torch.randint(1, 20, (21, 6), generator=torch.Generator().manual_seed(0))
data = [{"sample_id": i, "input_ids": tokens[i], "labels": int(tokens[i, 0] > 10)} for i in range(21)]
model = transformers.BertForSequenceClassification(transformers.BertConfig(
    vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16))
arguments = transformers.TrainingArguments(sys.argv[1] + "-out", num_train_epochs=2, per_device_train_batch_size=4,
    per_device_eval_batch_size=4, eval_strategy="epoch", save_strategy="no", report_to=[], use_cpu=True,
    ddp_backend="gloo", disable_tqdm=True, logging_strategy="no")
trainer = transformers.Trainer(model=model, args=arguments, train_dataset=data, eval_dataset=data,
    callbacks=[XaiCallback(sys.argv[1], save_checkpoint=False)])
trainer.train()
trainer.evaluate(metric_key_prefix="eval_late")
trainer.predict(data)
"""


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def trained(folder: Path, script: str) -> tuple[Path, str]:
    """Where two processes recorded, and what they said."""
    (folder / "train.py").write_text(script)
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port()),
            folder / "train.py", folder / "run",
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=900, check=False, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "run", done.stderr


@pytest.fixture(scope="module")
def of_lightning(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """All trainings of Lightning, one after the other in the same two processes, which take long to begin."""
    pytest.importorskip("lightning")
    return trained(tmp_path_factory.mktemp("lightning"), LIGHTNING)


@pytest.fixture(scope="module")
def of_transformers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    pytest.importorskip("transformers")
    return trained(tmp_path_factory.mktemp("transformers"), TRANSFORMERS)


@pytest.mark.parametrize("way", ["own", "both"])
def test_of_several_processes_the_same_criterion_counts(of_lightning: tuple[Path, str], way: str) -> None:
    """These run a step inside of a wrapper: a criterion that the step calls is none of the model's own."""
    run, _ = of_lightning
    found = xaicli.open_run(run.with_name(f"run-{way}")).scan(mode="train").collect()
    assert set(found["rank"]) == {0, 1}
    assert is_by(found, Own(), MAPPED if way == "both" else Y)


@pytest.mark.parametrize("library", ["lightning", "transformers"])
def test_two_processes_record_every_sample(request: pytest.FixtureRequest, library: str) -> None:
    run, said = request.getfixturevalue(f"of_{library}")
    reader = xaicli.open_run(run)
    for mode in ("train", "eval"):
        frame = reader.scan(mode=mode).collect()
        for epoch in (1, 2):
            ids = frame.filter(pl.col("epoch") == epoch)["sample_id"].to_list()
            assert set(ids) == set(range(21)), (mode, epoch)
        assert set(frame["rank"]) == {0, 1}
    # A sampler fills the last batch up with samples it has given already: they are counted, not hidden.
    raw = pl.read_parquet(run / "data").filter(mode="eval", ds_id="")
    doubled = raw.height - raw.unique(["epoch", "pass", "sample_id"]).height
    assert doubled > 0
    # Entry points after the first are of the same attempt, with every sample, and without a word of it.
    whole = pl.read_parquet(run / "data")
    late = {
        "lightning": [("test", "", 0), ("eval", "", 1), ("infer", "", 0)],
        "transformers": [("eval", "late", 0), ("test", "", 0)],
    }
    for mode, ds_id, turn in late[library]:
        last = whole.filter(mode=mode, ds_id=ds_id, epoch=2).filter(pl.col("pass") == turn)
        assert set(last["sample_id"]) == set(range(21)), (mode, ds_id)
        assert set(last["rank"]) == {0, 1}
    assert set(whole["attempt"]) == {0}
    assert "attempt" not in said
    samples = reader.samples(mode="eval", ds_id="", max=21, min=0)
    assert samples.data["sample_id"].n_unique() == 21
    assert samples.answer.counts.duplicates == doubled
    assert len(reader.layout.read_attempts()) == 1
