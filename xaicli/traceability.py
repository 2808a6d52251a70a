"""How a run was made: code, command, packages, hardware, seeds - noted at its start, shown in its reports.

Nothing secret is noted: of the environment only the variables listed here, and no credentials of the git remote.
Nothing here raises into a training.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = (
    "xaicli",
    "torch",
    "torchvision",
    "numpy",
    "pyarrow",
    "polars",
    "lightning",
    "pytorch-lightning",
    "transformers",
    "accelerate",
    "timm",
    "datasets",
    "scikit-learn",
)

_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "CUBLAS_WORKSPACE_CONFIG",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "PYTHONHASHSEED",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "SLURM_JOB_ID",
    "SLURM_NNODES",
    "NVIDIA_TF32_OVERRIDE",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_ALLOC_CONF",
)
"""The environment variables that are noted: those that change results or speed and never hold a secret."""

_GIT_SECONDS = 1.0
_SECRET = re.compile(
    r"(?<![a-z])(pass(word|wd|phrase)?|secret|token|credentials?|auth|(api|access|private)[-_]?key)(?![a-z])",
    re.IGNORECASE,
)
_CREDENTIALS_IN_URL = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_HIDDEN = "***"
_NVIDIA = Path("/proc/driver/nvidia/gpus")


def describe_environment(config: Mapping[str, Any] | None = None, *, folder: Path | None = None) -> dict[str, Any]:
    """What is needed to make the run again, as plain JSON types.

    Args:
        config: The caller's configuration, searched for seeds.
        folder: Where the code lies; by default that of the started script, else the current one.

    Returns:
        command, python, host, packages {name: version}, hardware, variables, seeds, and code {commit, branch, dirty,
        diff_sha256} where the folder is a git checkout. What cannot be found out is absent.
    """
    parts = {
        "command": _command,
        "folder": lambda: str(Path.cwd()),
        "python": platform.python_version,
        "platform": platform.platform,
        "host": socket.gethostname,
        "packages": _packages,
        "hardware": _hardware,
        "variables": lambda: {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "seeds": lambda: _seeds(config or {}),
        "code": lambda: describe_code(folder or _script_folder()) or describe_code(folder or Path.cwd()),
    }
    described = {name: _quietly(part) for name, part in parts.items()}
    return {name: value for name, value in described.items() if value not in (None, "", {})}


def describe_code(folder: Path) -> dict[str, Any]:
    """The git checkout a folder lies in: commit, branch, whether it differs from the commit, and the diff's SHA-256.

    `diff_sha256` covers the tracked files' changes; new files count as dirty but are not read. Empty where there is no
    checkout, no git, or git is too slow.
    """
    status = _git(folder, "status", "--porcelain=v2", "--branch", "--untracked-files=normal")
    if status is None:
        return {}
    lines = status.decode(errors="replace").splitlines()
    heads = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# branch.") and " " in line[2:])
    changes = [line for line in lines if line and not line.startswith("#")]
    code: dict[str, Any] = {"dirty": bool(changes)}
    commit, branch = heads.get("branch.oid", ""), heads.get("branch.head", "")
    if commit and not commit.startswith("("):
        code["commit"] = commit
    if branch and not branch.startswith("("):
        code["branch"] = branch
    if any(not line.startswith("?") for line in changes) and "commit" in code:
        diff = _git(folder, "diff", "--no-ext-diff", "--no-textconv", "--binary", "HEAD")
        if diff is not None:
            code["diff_sha256"] = hashlib.sha256(diff).hexdigest()
    return code


def describe_model(model: Any) -> dict[str, Any]:
    """A torch module in figures and as it prints itself.

    Args:
        model: A `torch.nn.Module`.

    Returns:
        {"class", "parameters", "trainable", "buffers", "bytes", "dtypes", "summary"}; the printed form is cut at 20,000
        characters.
    """
    parameters = list(model.parameters())
    buffers = list(model.buffers())
    held = {id(tensor): tensor for tensor in [*parameters, *buffers]}.values()
    return {
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        "parameters": sum(p.numel() for p in parameters),
        "trainable": sum(p.numel() for p in parameters if p.requires_grad),
        "buffers": sum(b.numel() for b in buffers),
        "bytes": sum(t.numel() * t.element_size() for t in held),
        "dtypes": sorted({str(t.dtype).removeprefix("torch.") for t in held}),
        "summary": str(model)[:20_000],
    }


def describe_dataset(data: Any) -> dict[str, Any]:
    """A dataset or data loader in words and figures; reads no sample.

    Args:
        data: A dataset, a `torch.utils.data.DataLoader`, or anything else with a length.

    Returns:
        {"class", "samples", "batches", "batch_size", "classes"}, as far as the thing tells.
    """
    dataset = getattr(data, "dataset", data)
    facts: dict[str, Any] = {
        "class": f"{type(dataset).__module__}.{type(dataset).__qualname__}",
        "samples": _length(dataset),
    }
    if dataset is not data:
        facts |= {"batches": _length(data), "batch_size": getattr(data, "batch_size", None)}
    classes = getattr(dataset, "classes", None)
    if isinstance(classes, list | tuple):
        facts["classes"] = [str(name) for name in classes[:1000]]
    return {key: value for key, value in facts.items() if value is not None}


def without_secrets(arguments: list[str]) -> list[str]:
    """Command-line arguments with the values of those that look like secrets hidden."""
    shown: list[str] = []
    hide_next = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        secret = bool(_SECRET.search(name))
        if hide_next and not argument.startswith("-"):
            shown.append(_HIDDEN)
        elif secret and equals:
            shown.append(f"{name}={_HIDDEN}")
        else:
            shown.append(_CREDENTIALS_IN_URL.sub(_HIDDEN, argument))
        hide_next = secret and not equals and name.startswith("-")
    return shown


def without_credentials(text: str) -> str:
    """A text with the user and password of an address in it hidden."""
    return _CREDENTIALS_IN_URL.sub(_HIDDEN, text)


def _command() -> str:
    return shlex.join(without_secrets([Path(sys.executable).name, *sys.argv]))


def _packages() -> dict[str, str]:
    versions = {name: _version(name) for name in _PACKAGES}
    return {name: version for name, version in versions.items() if version}


@functools.cache  # the versions of a dozen packages are a fifth of what opening and closing a run takes
def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _hardware() -> dict[str, Any]:
    hardware: dict[str, Any] = {"machine": platform.machine(), "cpus": os.cpu_count()}
    if memory := _quietly(lambda: os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")):
        hardware["memory_bytes"] = memory
    if gpus := _quietly(_gpus):
        hardware["gpus"] = gpus
    torch = sys.modules.get("torch")
    if torch is not None and torch.version.cuda:
        hardware["cuda"] = torch.version.cuda
    return hardware


def _gpus() -> list[str]:
    """The GPUs' names, told by the driver's files: asking torch would start the driver, and break later forks."""
    facts = [path.read_text(errors="replace") for path in sorted(_NVIDIA.glob("*/information"))]
    return [line.partition(":")[2].strip() for text in facts for line in text.splitlines() if line.startswith("Model:")]


def _seeds(config: Mapping[str, Any]) -> dict[str, Any]:
    found = {str(key): value for key, value in config.items() if "seed" in str(key).lower() and isinstance(value, int)}
    torch = sys.modules.get("torch")
    return {**found, "torch": torch.initial_seed()} if torch is not None else found


def _script_folder() -> Path:
    script = Path(sys.argv[0]) if sys.argv and sys.argv[0] else Path()
    return script.resolve().parent if script.is_file() else Path.cwd()


def _git(folder: Path, *arguments: str) -> bytes | None:
    """What git prints, or None. No hooks, no pager, no prompts; `--no-optional-locks` leaves the user's index alone."""
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=_GIT_SECONDS,
            check=True,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _length(thing: Any) -> int | None:
    try:
        return len(thing)
    except (TypeError, NotImplementedError):
        return None


def _quietly(part: Any) -> Any:
    try:
        return part()
    except Exception:  # a fact that cannot be found out is left out; a training goes on
        return None
