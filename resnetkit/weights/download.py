"""A published file from its address into torch.hub's folder: resumed after a cut, checked, whole or not there."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from time import sleep
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from resnetkit.errors import ModelFileRefused, refused

ATTEMPTS = 3  # in a row that bring nothing
PAUSE, TIMEOUT = 1.0, 30.0  # seconds
CHUNK = 1 << 20
PARTIAL_CONTENT, RANGE_NOT_SATISFIABLE, SERVER_ERROR = 206, 416, 500


def fetch_url(url: str, sha256: str) -> Path:
    """The file at `url`, downloaded unless it is there. `sha256` is its hash, or the first digits of it.

    Raises ModelFileRefused when it cannot be had or is not that file, ResourceExhausted when the disk gives out,
    ResnetkitError when it refuses.
    """
    path = checkpoint_folder() / Path(urlsplit(url).path).name
    if path.exists():
        if problem := _hash_problem(path, sha256):
            raise ModelFileRefused(f"{path}: {problem}; delete it to fetch it anew")
        return path
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(partial):
            if not path.exists():
                _download(url, partial)
                if problem := _hash_problem(partial, sha256):
                    partial.unlink()
                    raise ModelFileRefused(f"{url}: {problem}; it is not kept")
                os.replace(partial, path)
                return path
            partial.unlink(missing_ok=True)
        return fetch_url(url, sha256)  # another process has fetched it meanwhile
    except OSError as error:
        raise refused(f"{path}: not saved", error, full="free some space, and the next try goes on") from error


@contextmanager
def _alone(partial: Path) -> Iterator[None]:
    """While no other process has the file; where the system has no such locks, at once."""
    while True:
        with open(partial, "ab") as file:
            with suppress(ImportError, OSError):
                from fcntl import LOCK_EX, flock

                flock(file, LOCK_EX)
            if not partial.exists() or not os.path.samestat(os.fstat(file.fileno()), partial.stat()):
                continue  # who had it has put it in place, or thrown it away
            yield
            return


def checkpoint_folder() -> Path:
    """Where torch.hub keeps its checkpoints, so that a file that torchvision fetched serves too."""
    base = os.environ.get("TORCH_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "torch")
    return Path(base).expanduser() / "hub" / "checkpoints"


def file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash_problem(path: Path, sha256: str) -> str:
    found = file_sha256(path)[: len(sha256)]
    return "" if found == sha256.lower() else f"its SHA-256 begins with {found}, not with {sha256.lower()}"


def _download(url: str, partial: Path) -> None:
    """Append to `partial` until it is whole. What has come stays there, whatever happens."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
    with open(partial, "ab") as file, progress:
        task = progress.add_task(Path(urlsplit(url).path).name, total=None)
        fruitless = 0
        while True:
            before = file.tell()
            try:
                _receive(url, file, progress, task)
                break
            except ConnectionError as error:
                fruitless = 0 if file.tell() > before else fruitless + 1
                if fruitless == ATTEMPTS:
                    kept = f"; {before:,} bytes are kept, and the next try goes on from there" if before else ""
                    raise ModelFileRefused(f"{url}: not in the cache, and not to be had: {error}{kept}") from error
                sleep(PAUSE)
        file.flush()
        os.fsync(file.fileno())


def _receive(url: str, file: BinaryIO, progress: Progress, task: TaskID) -> None:
    """Append what the file lacks. Raises ConnectionError when the connection breaks before its end."""
    response = _open(url, file.tell())
    if response is None:
        return
    with response:
        if file.tell() and response.status != PARTIAL_CONTENT:  # a server without ranges begins anew
            file.seek(0)
            file.truncate()
        length = response.headers["Content-Length"]
        total = file.tell() + int(length) if length else None
        progress.update(task, total=total, completed=file.tell())
        while chunk := _read(response):
            file.write(chunk)
            progress.advance(task, len(chunk))
    if total is not None and file.tell() < total:
        raise ConnectionError(f"the connection broke after {file.tell():,} of {total:,} bytes")


def _open(url: str, start: int) -> HTTPResponse | None:
    """The answer from byte `start` on; None where the file has no such byte, so that all of it is there."""
    headers = {"Range": f"bytes={start}-"} if start else {}
    try:
        response: HTTPResponse = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == RANGE_NOT_SATISFIABLE:
            return None
        if error.code < SERVER_ERROR:
            raise ModelFileRefused(f"{url}: the server answers {error.code} {error.reason}") from error
        raise ConnectionError(f"the server answers {error.code} {error.reason}") from error
    except (HTTPException, OSError) as error:
        raise ConnectionError(str(error)) from error
    return response


def _read(response: HTTPResponse) -> bytes:
    try:
        return response.read(CHUNK)
    except (HTTPException, OSError) as error:
        raise ConnectionError(str(error)) from error
