"""What happened in a run: one JSON line an event, and a table with a line an epoch; told to its trackers as well."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from resnetkit.atomic import drop_torn_line, write_text
from resnetkit.errors import refused
from resnetkit.tables import csv_text
from resnetkit.training.tracking import Trackers


class Journal:
    """`log.jsonl` and `results.csv` in a run folder. On a resume, epochs past the checkpoint are forgotten."""

    def __init__(self, folder: Path, trackers: Trackers) -> None:
        self._log = folder / "log.jsonl"
        self._table = folder / "results.csv"
        self._trackers = trackers
        self.epochs: list[dict[str, Any]] = []

    def resume(self, finished_epochs: int) -> None:
        """Read the epochs again, up to those that the checkpoint has finished.

        One that was told and not saved, as where the disk filled between, is told once more: the later line counts.
        """
        drop_torn_line(self._log)
        epochs = {}
        for line in self._log.read_text(encoding="utf-8").splitlines():
            try:
                event = json.loads(line)
            except ValueError:  # earlier versions wrote on behind a line that was cut short
                continue
            if event["event"] == "epoch" and event["epoch"] <= finished_epochs:
                epochs[event["epoch"]] = {k: v for k, v in event.items() if k not in ("event", "time")}
        self.epochs = [epochs[epoch] for epoch in sorted(epochs)]

    def write(self, event: str, **values: Any) -> None:
        """Raises ResourceExhausted where the disk gives out, ResnetkitError where it refuses; the trackers are told all
        the same."""
        time = datetime.now(UTC).isoformat(timespec="seconds")
        try:
            with open(self._log, "a", encoding="utf-8") as file:
                file.write(json.dumps({"event": event, "time": time} | values) + "\n")
        except OSError as error:
            raise refused(f"{self._log}: not written", error, full="free some space and resume") from error
        finally:
            self._trackers.tell(event, values)

    def write_epoch(self, **values: Any) -> None:
        self.epochs.append(values)
        self.write("epoch", **values)
        write_text(self._table, csv_text(list(values), [list(epoch.values()) for epoch in self.epochs]))
