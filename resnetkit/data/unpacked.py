"""Encoded images too many for memory that cannot be read where they lie: unpacked once, into the user's cache."""

from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path
from shutil import disk_usage

import numpy as np

from resnetkit.atomic import create_atomically
from resnetkit.data.encoded import Member
from resnetkit.errors import ResnetkitError, ResourceExhausted
from resnetkit.user_cache import cache_folder


def unpacked(source: Path, size: int, images: Iterable[bytes]) -> list[Member]:
    """The `images` of the file `source`, about `size` bytes together, as places in one file. They are read and written
    once, and again when `source` has changed. Raises ResourceExhausted where the disk has too little space.
    """
    found = source.stat()
    subject = f"{source.resolve()}\n{found.st_size}\n{found.st_mtime_ns}"
    key = blake2b(subject.encode(errors="surrogateescape"), digest_size=16).hexdigest()
    folder = cache_folder() / "unpacked" / key
    if not folder.exists():
        _require_space(folder.parent, size)
        try:
            create_atomically(folder, lambda partial: _unpack(partial, images))
        except ResnetkitError:
            if not folder.exists():  # no other run was faster
                raise
    store, ends = folder / "images", np.load(folder / "ends.npy").tolist()
    return [Member(store, start, end - start, end - start) for start, end in zip([0, *ends], ends)]


def _unpack(folder: Path, images: Iterable[bytes]) -> None:
    folder.mkdir()
    ends = []
    with open(folder / "images", "wb") as store:
        for image in images:
            store.write(image)
            ends.append(store.tell())
    np.save(folder / "ends.npy", np.array(ends, dtype=np.int64))


def _require_space(folder: Path, size: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = disk_usage(folder).free
    if size > free:
        raise ResourceExhausted(
            f"{folder}: unpacking the images takes {size / 1e9:.1f} GB, of {free / 1e9:.1f} GB free; free some space "
            "or set XDG_CACHE_HOME"
        )
