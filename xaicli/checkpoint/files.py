"""Files on disk: what a checkpoint is, told from its bytes, and its contents without running any of them."""

from __future__ import annotations

import contextlib
import hashlib
import pickle
import pickletools
import re
from enum import StrEnum
from pathlib import Path
from typing import Any

from xaicli.checkpoint.archive import MAGIC, Archive, damaged
from xaicli.checkpoint.package import is_package
from xaicli.checkpoint.refusal import RefusedError, convert_hint, refused
from xaicli.errors import XaiError

_LARGEST_FILE = 256 * 2**30
_LARGEST_HEADER = 100 * 2**20
_SUFFIXES = frozenset({".pt", ".pth", ".ckpt", ".pt2", ".safetensors", ".bin"})


class Container(StrEnum):
    """The outer form of a checkpoint."""

    FOLDER = "folder"
    SAFETENSORS = "safetensors"
    PACKAGE = "package"
    """A `.pt2` archive."""
    TORCHSCRIPT = "torchscript"
    TORCH = "torch"
    """A zip archive made by `torch.save`."""
    LEGACY = "legacy"
    """A bare pickle, made by `torch.save` before torch 1.6."""


def sniff(path: Path) -> Container:
    """Tell the form of a checkpoint from its first bytes, checking a zip archive's structure on the way.

    Raises:
        XaiError: There is no such file, or it is none of the forms.
        RefusedError: The archive holds what torch does not write.
    """
    _check_path(path)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise XaiError(
                f"{path} is a folder without config.json", hint="name a file, or a Hugging Face model folder"
            )
        return Container.FOLDER
    with path.open("rb") as file:
        head = file.read(9)
    if head.startswith(MAGIC):
        with Archive.open(path) as archive:
            return _zip_form(archive)
    if len(head) == 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < _LARGEST_HEADER:
        return Container.SAFETENSORS
    if head[:1] == b"\x80" and head[1:2] <= b"\x05" and len(head) > 2:
        return Container.LEGACY
    raise XaiError(
        f"{path} is no checkpoint that xai knows",
        hint="it reads .safetensors, what torch.save and torch.export.save write, and Hugging Face folders",
    )


def read_torch(path: Path, *, trust: bool = False) -> Any:
    """The content of what `torch.save` wrote, on the CPU: tensors and plain values only.

    Args:
        path: A file of the form TORCH or LEGACY.
        trust: Unpickle whatever it holds. This runs the code in it.

    Raises:
        RefusedError: It holds objects of other classes; the error names them.
        DamagedFileError: It is not complete.
    """
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=not trust)
    except pickle.UnpicklingError as error:
        raise _pickle_refusal(path, error) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AssertionError) as error:
        raise damaged(path, str(error).splitlines()[0] if str(error) else type(error).__name__) from error
    except (AttributeError, ImportError) as error:
        if not trust:
            raise damaged(path, f"{type(error).__name__}: {error}") from error
        raise XaiError(
            f"{path} needs code that is not here: {error}", hint="say where with --pythonpath DIR"
        ) from error


def classes_in(path: Path) -> list[str]:
    """The classes and functions a pickled checkpoint would import and call, found without doing so."""
    from torch.serialization import get_unsafe_globals_in_checkpoint

    try:
        return sorted(set(get_unsafe_globals_in_checkpoint(path)))
    except Exception:
        return _imported(path)


def _imported(path: Path) -> list[str]:
    """What a bare pickle imports, read off its opcodes as far as they can be read."""
    found: set[str] = set()
    texts: list[str] = []
    with path.open("rb") as file, contextlib.suppress(Exception):
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name == "GLOBAL":
                found.add(str(argument).replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL" and len(texts) > 1:
                found.add(".".join(texts[-2:]))
            elif isinstance(argument, str):
                texts = [*texts[-1:], argument]
    return sorted(found)


def sha256(path: Path) -> str:
    """The digest of a file's bytes, hexadecimal; of a folder, that of its JSON and safetensors files together."""
    if path.is_dir():
        parts = sorted(p for p in path.iterdir() if p.suffix in (".json", ".safetensors", ".bin") and p.is_file())
        together = "".join(f"{part.name} {sha256(part)}\n" for part in parts)
        return hashlib.sha256(together.encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_path(path: Path) -> None:
    if not path.exists():
        siblings = (
            sorted(p.name for p in path.parent.glob("*") if p.suffix in _SUFFIXES) if path.parent.is_dir() else []
        )
        hint = (
            f"in {path.parent}: {', '.join(siblings[:8])}" if siblings else "write one with run.save_checkpoint(model)"
        )
        raise XaiError(f"there is no checkpoint {path}", hint=hint)
    run = path.absolute().parent.parent
    if (run / "xai.json").is_file() and not path.resolve().is_relative_to(run.resolve()):
        raise refused(path, "a symbolic link that leaves its run", hint=f"if you trust it, name it: {path.resolve()}")
    if path.is_file() and path.stat().st_size > _LARGEST_FILE:
        raise refused(path, f"{path.stat().st_size:,} bytes; at most {_LARGEST_FILE:,} are read")
    if not path.is_dir() and not path.is_file():
        raise XaiError(f"{path} is neither a file nor a folder")
    if path.is_file() and path.stat().st_size == 0:
        raise damaged(path, "it is empty")


def _zip_form(archive: Archive) -> Container:
    names = archive.members
    if is_package(archive):
        return Container.PACKAGE
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        return Container.TORCHSCRIPT
    if "data.pkl" in names:
        archive.verify()
        return Container.TORCH
    raise XaiError(
        f"{archive.path} is a zip archive, but none of torch's",
        hint="it holds " + ", ".join(sorted(names)[:6]),
    )


def _pickle_refusal(path: Path, error: pickle.UnpicklingError) -> RefusedError:
    classes = classes_in(path) or re.findall(r"GLOBAL ([\w.]+)", str(error))[:1]
    named = ", ".join(classes[:6]) or str(error).strip().splitlines()[0][:200]
    return refused(path, f"a pickle that runs code when it is read: {named}", hint=convert_hint(path))
