"""What was measured on this machine and need not be measured again: one small JSON file in the user's cache."""

import json
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

from resnetkit.atomic import write_text
from resnetkit.errors import ResnetkitError
from resnetkit.user_cache import cache_folder


def cache_file() -> Path:
    return cache_folder() / "batch_sizes.json"


def recall(subject: dict[str, Any]) -> dict[str, Any] | None:
    """What was found of the same subject, if anything."""
    return _read().get(_key(subject))


def remember(subject: dict[str, Any], found: dict[str, Any]) -> None:
    """Keep what was found of a subject, whose values JSON can hold. A cache that cannot be written is done without."""
    with suppress(ResnetkitError):
        write_text(cache_file(), json.dumps(_read() | {_key(subject): found | {"subject": subject}}, indent=1) + "\n")


def _key(subject: dict[str, Any]) -> str:
    return blake2b(json.dumps(subject, sort_keys=True).encode(), digest_size=16).hexdigest()


def _read() -> dict[str, Any]:
    try:
        found = json.loads(cache_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
