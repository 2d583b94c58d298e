"""The files under results/: what each begins with, and where it lies."""

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import torch

from resnetkit.atomic import write_text
from resnetkit.training.folder import environment

RESULTS = Path(__file__).parents[1] / "results"


def header(name: str, command: str, seeds: list[int], device: torch.device | None = None) -> dict:
    """What was measured, when, on which commit and machine."""
    return {
        "id": name,
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": here(device),
        "seeds": seeds,
    }


def here(device: torch.device | None = None) -> dict:
    """Versions, machine and commit, which results that a measurement has saved so far do not make dirty."""
    found = environment(device)
    if found["commit"].endswith("-dirty"):
        changed = ["status", "--porcelain", "--untracked-files=no", ":(exclude)results"]
        done = subprocess.run(["git", "-C", str(RESULTS.parent), *changed], capture_output=True, text=True)
        if done.returncode == 0 and not done.stdout:
            found["commit"] = found["commit"].removesuffix("-dirty")
    return found


def save(result: dict, file: Path | None = None) -> Path:
    """Write a result to `file`, by default the one of its id, as `write_atomically` does."""
    file = file or RESULTS / f"{result['id']}.json"
    write_text(file, json.dumps(result, indent=2) + "\n")
    return file
