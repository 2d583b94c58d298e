"""Encoded images too many for memory that cannot be read where they lie: unpacked once, into the user's cache."""

from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path
from shutil import rmtree
from time import time

import numpy as np

from resnetkit.atomic import create_atomically
from resnetkit.data.encoded import Member
from resnetkit.errors import ResnetkitError
from resnetkit.user_cache import cache_folder, require_space

DAY = 86_400  # seconds, after which an unpacking that has not come to its end is taken for killed


def unpacked(source: Path, images: Iterable[bytes]) -> list[Member]:
    """The `images` of the file `source` as places in one file. They are read and written once, and again when `source`
    has changed or its folder in the cache is damaged. Raises ResourceExhausted where the disk gives out.
    """
    folder = _folder(source)
    ends = _ends(folder)
    if ends is None:
        _clear(folder)
        try:
            create_atomically(folder, lambda partial: _unpack(partial, images))
        except ResnetkitError:
            if _ends(folder) is None:  # no other run was faster
                raise
        ends = _ends(folder)
        assert ends is not None, "it was there a moment ago"
    return [Member(folder / "images", start, end - start, end - start) for start, end in zip([0, *ends], ends)]


def require_space_for(sizes: dict[Path, int]) -> None:
    """Raise ResourceExhausted where the disk has too little space for the images of all these files, by their sizes in
    bytes; those that are unpacked already take no more."""
    needed = sum(size for source, size in sizes.items() if _ends(_folder(source)) is None)
    require_space(cache_folder(), needed, "unpacking the images", "free some space or set XDG_CACHE_HOME")


def _folder(source: Path) -> Path:
    found = source.stat()
    subject = f"{source.resolve()}\n{found.st_size}\n{found.st_mtime_ns}"
    key = blake2b(subject.encode(errors="surrogateescape"), digest_size=16).hexdigest()
    return cache_folder() / "unpacked" / key


def _ends(folder: Path) -> list[int] | None:
    """Where each image ends; None where they are not all there."""
    try:
        ends: list[int] = np.load(folder / "ends.npy").tolist()
        size = (folder / "images").stat().st_size
    except (OSError, ValueError, EOFError):
        return None
    return ends if size == max(ends, default=0) else None


def _clear(folder: Path) -> None:
    """Remove what is damaged, and what a killed process left."""
    rmtree(folder, ignore_errors=True)
    for left in folder.parent.glob(f".{folder.name}.*"):
        if time() - left.stat().st_mtime > DAY:
            rmtree(left, ignore_errors=True)


def _unpack(folder: Path, images: Iterable[bytes]) -> None:
    folder.mkdir()
    ends = []
    with open(folder / "images", "wb") as store:
        for image in images:
            store.write(image)
            ends.append(store.tell())
    np.save(folder / "ends.npy", np.array(ends, dtype=np.int64))
