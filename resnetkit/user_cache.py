"""Where what can be made again is kept."""

import os
from pathlib import Path
from shutil import disk_usage

from resnetkit.errors import ResourceExhausted


def cache_folder() -> Path:
    """resnetkit's folder in the user's cache, which lies where the XDG base directory specification has it: a path that
    is not absolute does not count."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (given if given.is_absolute() else Path.home() / ".cache") / "resnetkit"


def require_space(folder: Path, needed: int, what: str, cure: str) -> None:
    """Raise ResourceExhausted where `what` takes more bytes than the disk of `folder` has free."""
    folder.mkdir(parents=True, exist_ok=True)
    free = disk_usage(folder).free
    if needed > free:
        raise ResourceExhausted(f"{folder}: {what} takes {needed / 1e9:.1f} GB, of {free / 1e9:.1f} GB free; {cure}")
