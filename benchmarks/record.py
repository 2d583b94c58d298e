"""What every file under results/ begins with."""

from datetime import UTC, datetime

from resnetkit.training.folder import environment


def header(name: str, command: str, seeds: list[int]) -> dict:
    """What was measured, when, on which commit and machine."""
    return {
        "id": name,
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": environment(),
        "seeds": seeds,
    }
