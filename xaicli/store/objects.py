"""Run directories in an object store: which files travel, how one is put, how one is fetched.

Parquet files are immutable and uniquely named: each goes up with one conditional put, and one that is there already is
carried on from. The few small files that change (`xai.json`, the attempts) are put again when their bytes differ.
Credentials, region and endpoint are the ecosystem's usual variables (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, ...);
none is ever written anywhere.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from xaicli.errors import XaiError, missing_extra
from xaicli.files import appearing

_URL = re.compile(r"[a-z][a-z0-9+.-]*://")
_MADE_HERE = ("cache/", "reports/")
_LOCAL_ONLY = ("wal/", *_MADE_HERE)
_TEMPORARY = re.compile(r"(^|/)\.|\.tmp|\.lock$")
_TIMEOUT = timedelta(seconds=20)
_RETRY_FOR = timedelta(seconds=40)


def is_url(text: object) -> bool:
    """Whether a run is named by an address in an object store (`s3://bucket/run`) rather than by a path."""
    return bool(_URL.match(str(text)))


def without_credentials(url: str) -> str:
    """An address as pages and tables may name it: without a user, a password or a signed query."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


@dataclass(frozen=True)
class Entry:
    """A file of a run.

    Attributes:
        key: Its path relative to the run directory, with `/`.
        size: Its bytes.
        mark: What a store calls these contents: other contents under the name have another; "" of a local file.
    """

    key: str
    size: int
    mark: str = field(default="", compare=False)

    @property
    def immutable(self) -> bool:
        """Whether the file never changes once it is complete."""
        return self.key.endswith(".parquet")


def local_files(root: Path) -> Iterator[Entry]:
    """The finished files of a run that belong in a store: no live segments, caches, reports or temporary files."""
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files):
            path = Path(folder) / name
            key = path.relative_to(root).as_posix()
            if key.startswith(_LOCAL_ONLY) or _TEMPORARY.search(key) or path.is_symlink():
                continue
            try:
                yield Entry(key, path.stat().st_size)
            except FileNotFoundError:  # compacted away meanwhile
                continue


class Store:
    """One run directory in an object store.

    Args:
        url: `s3://bucket/prefix`, `gs://`, `az://` or `file:///folder`.

    Raises:
        XaiError: The `s3` extra is not installed, or the address is none.
    """

    def __init__(self, url: str) -> None:
        try:
            import obstore
            from obstore.store import from_url
        except ImportError as error:
            raise missing_extra(f"reading or writing {url}", "s3") from error
        self.url = url.rstrip("/")
        self._obstore = obstore
        options: Any = {"timeout": _TIMEOUT, "connect_timeout": timedelta(seconds=5)}
        retry: Any = {"max_retries": 3, "retry_timeout": _RETRY_FOR}
        try:
            if urlsplit(url).scheme == "file":
                self._store = from_url(self.url, mkdir=True)
            else:
                options["allow_http"] = _plain_http()
                self._store = from_url(self.url, client_options=options, retry_config=retry)
        except Exception as error:
            raise self._fault("cannot be opened", error) from error

    def entries(self) -> dict[str, Entry]:
        """What the store holds, by key.

        Raises:
            XaiError: The store cannot be reached.
        """
        try:
            pages = self._obstore.list(self._store)
            return {meta["path"]: _entry(meta) for page in pages for meta in page}
        except Exception as error:
            raise self._fault("cannot be listed", error) from error

    def put(self, root: Path, entry: Entry) -> bool:
        """Put one file.

        Args:
            root: The local run directory.
            entry: The file.

        Returns:
            Whether anything was sent: not where an immutable file was there already.

        Raises:
            XaiError: The store cannot be reached, or holds other bytes under an immutable name.
        """
        from obstore.exceptions import AlreadyExistsError

        path = root / entry.key
        try:
            mode: Any = "create" if entry.immutable else "overwrite"
            self._obstore.put(self._store, entry.key, path, mode=mode)
        except AlreadyExistsError:
            if self._obstore.head(self._store, entry.key)["size"] != path.stat().st_size:
                raise XaiError(
                    f"{self.url}/{entry.key} exists with other contents",
                    hint="two different runs share this address; sync to another one",
                ) from None
            return False
        except FileNotFoundError:
            return False
        except Exception as error:
            raise self._fault(f"did not take {entry.key}", error) from error
        return True

    def fetch(self, entry: Entry, root: Path) -> None:
        """Fetch one file; it appears complete or not at all.

        Raises:
            XaiError: The store cannot be reached, or the key would leave the run directory.
        """
        path = root / entry.key
        if not path.resolve().is_relative_to(root.resolve()):
            raise XaiError(f"{self.url} holds {entry.key!r}, which would leave the run directory")
        try:
            with appearing(path) as file:
                for chunk in self._obstore.get(self._store, entry.key).stream():
                    file.write(chunk)
        except Exception as error:
            raise self._fault(f"did not give {entry.key}", error) from error

    def differs(self, root: Path, entry: Entry) -> bool:
        """Whether a file that may change has other bytes in the store than here."""
        return self.read(entry.key) != (root / entry.key).read_bytes()

    def read(self, key: str) -> bytes:
        """The contents of a small file.

        Raises:
            XaiError: The store cannot be reached, or holds no such file.
        """
        try:
            return bytes(self._obstore.get(self._store, key).bytes())
        except Exception as error:
            raise self._fault(f"did not give {key}", error) from error

    def _fault(self, what: str, error: Exception) -> XaiError:
        reason = str(error).strip().splitlines()
        return XaiError(
            f"{self.url} {what}: {reason[0] if reason else type(error).__name__}",
            hint="credentials and endpoint come from the usual variables (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...)",
        )


def mirror_folder(url: str) -> Path:
    """Where a run that lives in a store is kept on this machine: below `$XAI_HOME`, or the user's cache folder."""
    home = os.environ.get("XAI_HOME")
    base = Path(home) if home else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xai"
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", url.rstrip("/").rsplit("/", 1)[-1]) or "run"
    return base / "mirrors" / f"{name}-{hashlib.sha256(url.rstrip('/').encode()).hexdigest()[:12]}"


def travels(key: str) -> bool:
    """Whether a question about a run at an address needs a file: no caches, reports, locks or temporary files."""
    return not key.startswith(_MADE_HERE) and not _TEMPORARY.search(key)


def missing_in(there: dict[str, Entry], here: Iterable[Entry]) -> list[Entry]:
    """The files of `here` that are not `there`, or are there with another size."""
    return [entry for entry in here if entry.key not in there or there[entry.key].size != entry.size]


def _entry(meta: Any) -> Entry:
    return Entry(meta["path"], meta["size"], str(meta["e_tag"] or meta["last_modified"]))


def _plain_http() -> bool:
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    return any(os.environ.get(name, "").startswith("http://") for name in names)
