"""Where what can be made again is kept."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """resnetkit's folder in the user's cache, which lies where the XDG base directory specification has it: a path that
    is not absolute does not count."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (given if given.is_absolute() else Path.home() / ".cache") / "resnetkit"
