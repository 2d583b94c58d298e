"""An experiment from its question to its page: cells are measured, each is kept, and all are read together."""

import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from functools import partial
from math import isfinite
from pathlib import Path
from shlex import quote
from time import perf_counter
from typing import Any, ClassVar

import torch

from resnetkit.architecture.variants import spec
from resnetkit.atomic import write_text
from resnetkit.cores import core_count
from resnetkit.device import find_device
from resnetkit.errors import Interrupted, ResnetkitError, refused
from resnetkit.lab.cells import MOST, Cell, measured
from resnetkit.reporting.graphs import Graph, Heat
from resnetkit.reporting.report import render
from resnetkit.training.allocator import keep_freed_memory
from resnetkit.training.folder import environment, new_run_path
from resnetkit.training.interrupt import StopRequest
from resnetkit.training.precision import resolve_precision

PAGE, RESULTS = "report.html", "results.json"
TOLD = "lab.json"


@dataclass(frozen=True)
class Finding:
    """A claim, whether the numbers bear it out (None: they do not say), and the numbers in a sentence."""

    key: str
    claim: str
    holds: bool | None
    says: str

    @property
    def verdict(self) -> str:
        return {True: "holds", False: "does not hold", None: "does not show at this budget"}[self.holds]


@dataclass(frozen=True)
class Table:
    """Rows of text under a header; the first column names the row."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Reading:
    """What the cells say together. `figures` are the numbers behind the findings, for the results file."""

    findings: list[Finding]
    graphs: Sequence[Graph | Heat]
    tables: list[Table]
    figures: dict[str, Any] = field(default_factory=dict)
    notes: str = ""


@dataclass(frozen=True, kw_only=True)
class Experiment(ABC):
    """One question. The fields of a subclass are what may be set; they are kept in the folder with what was found."""

    NAME: ClassVar[str]
    QUESTION: ClassVar[str]
    METHOD: ClassVar[str]
    SOURCE: ClassVar[str]
    POSITIONAL: ClassVar[str] = "data"
    QUICK: ClassVar[dict[str, Any]] = {}  # settings that take minutes where the experiment's own take hours
    SIDE_BY_SIDE: ClassVar[bool] = False  # whether cells neither are timed nor use what another has made

    seeds: int = 3

    def __post_init__(self) -> None:
        for name in ("seeds", "batch", "images", "epochs"):
            if (value := getattr(self, name, 1)) < 1:
                raise ResnetkitError(f"{name}={value}: give one or more")
        depths: tuple[int, ...] | None = getattr(self, "depths", None)
        if depths is None:
            return
        if not depths or len(set(depths)) < len(depths):
            raise ResnetkitError(f"depths={', '.join(map(str, depths))}: give one or more, and each once")
        kinds = {spec(f"resnet{depth}_cifar").block: depth for depth in depths}  # refuses what does not fit
        if len(kinds) > 1:
            told = " and ".join(f"{depth} layers are {kind} blocks" for kind, depth in kinds.items())
            raise ResnetkitError(f"depths: {told}; give depths of one kind, which can be compared")

    @abstractmethod
    def cells(self) -> list[Cell]:
        """What is to be measured, in this order: the cells of a grid."""

    @abstractmethod
    def measure(self, cell: Cell, folder: Path) -> dict[str, Any]:
        """The numbers of one cell. `folder` is the experiment's, begun: files that it needs again lie there."""

    @abstractmethod
    def read(self, rows: list[Cell]) -> Reading:
        """What all cells say together; a row is a cell with its numbers."""

    @property
    def precision(self) -> str:
        """That networks are trained in; auto is settled once, when the experiment begins."""
        return "float32"

    def settings(self) -> dict[str, Any]:
        """As JSON gives them back."""
        return json.loads(json.dumps(asdict(self)))

    def known(self) -> dict[str, Any]:
        """By what else than its settings the same experiment is known, as JSON gives it back."""
        return {}

    def command(self) -> str:
        """What to type to repeat it."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        own = {one.name: values[one.name] for one in fields(self) if values[one.name] != one.default}
        words = [str(own.pop(name)) for name in (self.POSITIONAL,) if name in own]
        if self.QUICK and self.QUICK.items() <= own.items():
            words.append("--quick")
            own = {key: value for key, value in own.items() if key not in self.QUICK}
        for key, value in own.items():
            for each in value if isinstance(value, tuple) else (value,):
                words += [f"--{key}", str(each)]
        return " ".join(["resnet lab", self.NAME, *map(quote, words)])


def processes_for(experiment: Experiment) -> int:
    """One for each core up to MOST, where cells may be measured side by side."""
    if not experiment.SIDE_BY_SIDE or _device(experiment).type != "cpu":
        return 1
    return min(MOST, core_count())


def _device(experiment: Experiment) -> torch.device:
    return find_device(getattr(experiment, "device", "cpu"))


@dataclass(frozen=True)
class Result:
    """A finished experiment; `record` is what results.json holds."""

    folder: Path
    record: dict[str, Any]

    @property
    def page(self) -> Path:
        return self.folder / PAGE


def conduct(experiment: Experiment, out: str | Path | None = None, processes: int = 1) -> Result:
    """Measure every cell that the folder lacks, then write results.json and report.html.

    The folder is `out`, by default runs/lab-<name>-<number>. One where the same experiment was begun is gone on with.
    So many `processes` measure cells side by side, if the experiment allows it; with more than one a script must keep
    its own work under `if __name__ == "__main__"`.
    Raises ResnetkitError where the folder holds something else, Interrupted when told to stop: the cells so far are
    kept.
    """
    cells = experiment.cells()
    folder = new_run_path(f"lab-{experiment.NAME}") if out is None else Path(out)
    kept = _Kept(folder, experiment)
    keep_freed_memory()
    todo = [cell for cell in cells if kept.get(cell) is None]
    _say(f"{experiment.NAME}: {len(cells)} cells, {len(cells) - len(todo)} of them measured already, in {folder}")
    together = min(processes, max(1, len(todo))) if experiment.SIDE_BY_SIDE else 1
    began = before = perf_counter()
    done = 0
    try:
        with StopRequest() as stop:
            measure = partial(experiment.measure, folder=folder)
            for cell, found, seconds in measured(measure, todo, together, lambda: stop.requested):
                now, done = perf_counter(), done + 1
                kept.add(cell, found, seconds, now - before)
                words = "  ".join(f"{key} {value}" for key, value in cell.items())
                left = (now - began) / done * (len(todo) - done)
                _say(f"{done:>{len(str(len(todo)))}}/{len(todo)}  {words}  {seconds:.1f} s  ETA {left:.0f} s")
                before = now
    except Interrupted as error:
        raise Interrupted(
            f"stopped after {done} of {len(todo)} cells; give the same command with --out {quote(str(folder))} to go on"
        ) from error
    rows = [cell | (kept.get(cell) or {}) for cell in cells]
    reading = experiment.read(rows)
    record = kept.told | {
        "id": f"lab-{experiment.NAME}",
        "command": experiment.command(),
        "seeds": list(range(experiment.seeds)),
        "seconds": round(kept.seconds, 1),
        "processes": together,
    }
    record |= as_recorded(reading) | {"cells": _floats(_or_null, rows)}
    write_text(folder / RESULTS, results_text(record))
    facts = {"experiment": experiment, "reading": reading, "record": record}
    write_text(folder / PAGE, render("lab.html", facts))
    return Result(folder, record)


def as_recorded(reading: Reading) -> dict[str, Any]:
    """What results.json holds of a reading."""
    findings = [asdict(finding) | {"verdict": finding.verdict} for finding in reading.findings]
    return {"findings": findings, "figures": _floats(_or_null, reading.figures)}


def results_text(record: dict[str, Any]) -> str:
    """What results.json holds: JSON with a line for each cell, which comes last."""
    head = json.dumps({key: value for key, value in record.items() if key != "cells"}, indent=1)
    cells = ",\n  ".join(json.dumps(cell) for cell in record["cells"])
    return f'{head[:-2]},\n "cells": [\n  {cells}\n ]\n}}\n'


def _short(value: float) -> float:
    """Six digits of every number are enough to read and to draw."""
    return float(f"{value:.6g}")


def _or_null(value: float) -> float | None:
    """JSON has no infinity, and nothing that is no number."""
    return value if isfinite(value) else None


def _floats(change: Callable[[float], float | None], value: Any) -> Any:
    """The same records and lists, every float in them changed."""
    if isinstance(value, float):
        return change(value)
    if isinstance(value, dict):
        return {key: _floats(change, own) for key, own in value.items()}
    return [_floats(change, own) for own in value] if isinstance(value, (list, tuple)) else value


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _asked(told: dict[str, Any], experiment: Experiment, keys: Iterable[str]) -> dict[str, Any]:
    """What a folder says was asked; a setting that an earlier version had not is as it comes."""
    kept = {key: told.get(key) for key in keys}
    if isinstance(kept["settings"], dict):
        kept["settings"] = type(experiment)().settings() | kept["settings"]
    return kept


class _Kept:
    """The cells measured so far: one JSON line each, under a file that says what was asked."""

    def __init__(self, folder: Path, experiment: Experiment) -> None:
        self._told, self._lines = folder / TOLD, folder / "cells.jsonl"
        asked = {"experiment": experiment.NAME, "settings": experiment.settings(), "method": experiment.METHOD}
        asked |= experiment.known()
        if self._told.exists():
            self.told = self._read_told()
            if "precision" not in self.told or _asked(self.told, experiment, asked) != asked:
                raise ResnetkitError(
                    f"{folder} holds an experiment with other settings, of other networks or of another version; "
                    "choose another --out"
                )
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ResnetkitError(f"{folder} is there already and is no experiment's; choose another --out")
        else:
            date = datetime.now(UTC).isoformat(timespec="seconds")
            device = _device(experiment)
            self.told = asked | {
                "date": date,
                "environment": environment(device),
                "precision": resolve_precision(experiment.precision, device),
            }
            write_text(self._told, json.dumps(self.told, indent=2) + "\n")
        self._found: dict[str, Cell] = {}
        self.seconds = 0.0
        for line in self._lines.read_text(encoding="utf-8").splitlines() if self._lines.exists() else []:
            try:
                row = json.loads(line)
            except ValueError:  # the last line of one that was killed
                continue
            self._take(row)

    def _read_told(self) -> dict[str, Any]:
        try:
            told = json.loads(self._told.read_text(encoding="utf-8"))
        except ValueError:
            told = None
        if not isinstance(told, dict):
            raise ResnetkitError(f"{self._told} does not say what was asked; choose another --out")
        return told

    def _take(self, row: dict[str, Any]) -> None:
        self._found[json.dumps(row["cell"], sort_keys=True)] = row["found"]
        self.seconds += row["passed"]

    def get(self, cell: Cell) -> Cell | None:
        return self._found.get(json.dumps(cell, sort_keys=True))

    def add(self, cell: Cell, found: Cell, seconds: float, passed: float) -> None:
        """`seconds` are the cell's own, `passed` those since the last one was added."""
        row = {"cell": cell, "found": _floats(_short, found), "seconds": round(seconds, 3), "passed": round(passed, 3)}
        try:
            with open(self._lines, "ab+") as file:
                half = file.tell() and (file.seek(-1, 2), file.read(1))[1] != b"\n"  # of one that was killed
                file.write(("\n" * half + json.dumps(row) + "\n").encode())
        except OSError as error:
            raise refused(f"{self._lines}: not written", error) from error
        self._take(json.loads(json.dumps(row)))
