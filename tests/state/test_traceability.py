"""What is noted of how a run was made, and what is not."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from xaicli import traceability
from xaicli.recorder.config import plain_config
from xaicli.traceability import describe_code, describe_dataset, describe_environment, describe_model, without_secrets


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=e@x", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q", "-b", "trunk")
    (tmp_path / "train.py").write_text("lr = 1\n")
    git(tmp_path, "add", "train.py")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def test_a_clean_checkout_is_its_commit(checkout: Path) -> None:
    (checkout / "below").mkdir()
    expected = {"commit": git(checkout, "rev-parse", "HEAD"), "branch": "trunk", "dirty": False}
    assert describe_code(checkout) == expected
    assert describe_code(checkout / "below") == expected


def test_a_changed_checkout_has_a_diff_hash_that_tells_changes_apart(checkout: Path) -> None:
    hashes = []
    for text in ("lr = 2\n", "lr = 3\n", "lr = 2\n"):
        (checkout / "train.py").write_text(text)
        code = describe_code(checkout)
        assert code["dirty"]
        hashes.append(code["diff_sha256"])
    assert hashes[0] == hashes[2] != hashes[1]
    git(checkout, "add", "train.py")
    assert describe_code(checkout)["diff_sha256"] == hashes[0]


def test_a_new_file_is_dirty_without_a_diff(checkout: Path) -> None:
    (checkout / "new.py").write_text("x")
    code = describe_code(checkout)
    assert code["dirty"]
    assert "diff_sha256" not in code


def test_no_checkout_no_commit_no_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert describe_code(empty) == {}
    assert describe_code(tmp_path / "missing") == {}
    git(empty, "init", "-q", "-b", "trunk")
    assert describe_code(empty) == {"dirty": False, "branch": "trunk"}
    monkeypatch.setenv("PATH", "")
    assert describe_code(empty) == {}


def test_a_slow_git_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path / "git"
    slow.write_text("#!/bin/sh\nexec sleep 30\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(traceability, "_GIT_SECONDS", 0.2)
    assert describe_code(tmp_path) == {}


def test_the_environment_is_plain_json_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "verysecret")
    monkeypatch.setattr(sys, "argv", ["train.py", "--lr", "0.1", "--api-key", "verysecret", "token=verysecret"])
    environment = describe_environment({"seed": 7, "lr": 0.1, "data_seed": 8})
    text = json.dumps(environment)
    assert "verysecret" not in text
    assert environment["variables"]["OMP_NUM_THREADS"] == "3"
    assert "--lr 0.1" in environment["command"]
    assert environment["packages"]["xaicli"]
    assert environment["packages"]["torch"] == torch.__version__
    assert environment["hardware"]["cpus"]
    assert environment["python"] == sys.version.split()[0]
    assert environment["seeds"] == {"seed": 7, "data_seed": 8, "torch": torch.initial_seed()}


def test_what_cannot_be_found_out_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    for name in ("_command", "_packages", "_hardware", "_seeds", "describe_code"):
        monkeypatch.setattr(traceability, name, broken)
    assert set(describe_environment()) >= {"python", "platform", "host"}
    assert "packages" not in describe_environment()


def test_describing_disturbs_no_random_stream() -> None:
    before = random.getstate(), torch.get_rng_state()
    describe_environment()
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (["--token", "abc", "--lr", "1"], ["--token", "***", "--lr", "1"]),
        (["--hf_token=abc"], ["--hf_token=***"]),
        (["--password", "--verbose"], ["--password", "--verbose"]),
        (["db.password=x"], ["db.password=***"]),
        (
            ["--tokenizer", "bert", "--max-tokens", "9", "--author=me"],
            ["--tokenizer", "bert", "--max-tokens", "9", "--author=me"],
        ),
        (["s3://key:pw@host/x"], ["s3://***@host/x"]),
        (["--data=https://u:p@h/x"], ["--data=https://***@h/x"]),
    ],
)
def test_arguments_that_look_like_secrets_are_hidden(given: list[str], shown: list[str]) -> None:
    assert without_secrets(given) == shown


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("https://x/?api_key=hush&page=1", "https://x/?api_key=***&page=1"),
        ("https://me:hush@h/p?token=hush#part", "https://***@h/p?token=***#part"),
        ("https://x.blob.core.windows.net/c?sv=1&sig=hush", "https://x.blob.core.windows.net/c?sv=1&sig=***"),
        ("https://s3/x?X-Amz-Signature=hush&X-Amz-Date=1", "https://s3/x?X-Amz-Signature=***&X-Amz-Date=1"),
        ("--url=https://h/p?token=hush", "--url=https://h/p?token=***"),
        ("WANDB_API_KEY=hush python train.py --lr 2", "WANDB_API_KEY=*** python train.py --lr 2"),
        ("train.py --api-key hush --lr 3", "train.py --api-key *** --lr 3"),
        ("Authorization: Bearer hush", "Authorization: Bearer ***"),
        ("curl -H 'X-Api-Key: hush'", "curl -H 'X-Api-Key: ***'"),
        ("lr=0.1, the key points are tokens=3", "lr=0.1, the key points are tokens=3"),
        ("s3://bucket/run?versionId=3", "s3://bucket/run?versionId=3"),
    ],
)
def test_a_text_of_the_configuration_lets_nobody_in(given: str, shown: str) -> None:
    assert plain_config({"text": given}) == {"text": shown}


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (["wandb.key=hush", "+wandb.key=hush"], ["wandb.key=***", "+wandb.key=***"]),
        (["--wandb.key", "hush", "--key=hush", "--pw", "hush"], ["--wandb.key", "***", "--key=***", "--pw", "***"]),
        (
            ["-H", "Authorization: Bearer hush", "https://h/?token=hush"],
            ["-H", "Authorization: Bearer ***", "https://h/?token=***"],
        ),
        (
            ["--max-tokens", "512", "--tokens=4", "--sort-key", "loss"],
            ["--max-tokens", "512", "--tokens=4", "--sort-key", "loss"],
        ),
    ],
)
def test_a_command_line_lets_nobody_in(given: list[str], shown: list[str]) -> None:
    assert without_secrets(given) == shown


def test_a_model_in_figures() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    model[0].bias.requires_grad_(False)
    facts = describe_model(model)
    assert facts["class"] == "torch.nn.modules.container.Sequential"
    assert (facts["parameters"], facts["trainable"], facts["buffers"]) == (12 + 4 + 8, 12 + 8, 9)
    assert facts["bytes"] == 24 * 4 + 8 * 4 + 8
    assert facts["dtypes"] == ["float32", "int64"]
    assert "Linear(in_features=3" in facts["summary"]
    json.dumps(facts)


def test_a_dataset_in_figures() -> None:
    class Digits(torch.utils.data.Dataset[int]):
        classes = ("zero", "one")

        def __len__(self) -> int:
            return 10

        def __getitem__(self, index: int) -> int:
            raise AssertionError("no sample may be read")

    facts = describe_dataset(torch.utils.data.DataLoader(Digits(), batch_size=4))
    assert facts.pop("class").endswith("Digits")
    assert facts == {"samples": 10, "batches": 3, "batch_size": 4, "classes": ["zero", "one"]}
    assert describe_dataset(iter(())) == {"class": "builtins.tuple_iterator"}
