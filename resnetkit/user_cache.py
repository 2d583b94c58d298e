"""The user's cache folder."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where it lies, as the XDG base directory specification has it: a path that is not absolute does not count."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (given if given.is_absolute() else Path.home() / ".cache") / "resnetkit"
