"""Files that anybody may have written: opened once, only where they are plain files, and named in one line."""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from resnetkit.errors import ModelFileRefused

JSON_BYTES = 1 << 20  # config.json and the like take a few kilobytes, the index of 35,000 tensors 3 MB
INDEX_BYTES = 16 << 20


@contextmanager
def open_untrusted(path: Path) -> Iterator[BufferedReader]:
    """A plain file, opened for reading; whatever is checked and read comes from this one descriptor.

    Raises ModelFileRefused where the file is missing, a folder, a pipe or a device, or may not be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe without a writer must not hold us up
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelFileRefused(f"{path}: cannot be opened: {reason}; check the path and its rights") from error
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ModelFileRefused(f"{path}: a pipe or a device; copy what it gives into a file")
        yield file


def size_of(file: BufferedReader) -> int:
    """Bytes of an open file."""
    return os.fstat(file.fileno()).st_size


def within(folder: Path, name: str) -> Path:
    """The file `name` of a folder. Raises ModelFileRefused where name or link lead out of it.

    A snapshot in Hugging Face's cache holds links to `blobs`, two folders up, and to nothing else.
    """
    if name in ("", ".", "..") or any(sign in name for sign in "/\\\0"):
        raise ModelFileRefused(f"{folder}: names {shown(name)}, which is no plain file name; use files of this folder")
    path = folder / name
    homes = [folder.resolve()]
    if folder.resolve().parent.name == "snapshots":
        homes.append(folder.resolve().parents[1] / "blobs")
    if path.is_symlink() and not any(path.resolve().is_relative_to(home) for home in homes):
        raise ModelFileRefused(f"{path}: a link out of its folder; put the file itself there")
    return path


def read_json(path: Path, limit: int = JSON_BYTES) -> dict[str, Any]:
    """The JSON object in a file of at most `limit` bytes. Raises ModelFileRefused."""
    with open_untrusted(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ModelFileRefused(f"{path}: over {limit >> 20} MB, too large for what it should hold; mend or remove it")
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelFileRefused(f"{path}: not a JSON file ({one_line(error)}); mend or remove it") from error
    if not isinstance(value, dict):
        raise ModelFileRefused(f"{path}: not a JSON object; mend or remove it")
    return value


def shown(name: object) -> str:
    """A name out of a file, fit for one line of a message."""
    text = ascii(name)
    return text if len(text) <= 100 else f"{text[:80]}...{text[-15:]}"


def bare(name: object) -> str:
    """The same without quotes."""
    return shown(str(name))[1:-1]


def one_line(error: object) -> str:
    """The first line of an error, at most 200 characters."""
    lines = str(error).strip().splitlines()
    return ascii(lines[0])[1:-1][:200] if lines else type(error).__name__
