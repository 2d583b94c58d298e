"""What lies in a run folder, read once for the page."""

import json
import tomllib
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from resnetkit.data.labels import SEPARATOR
from resnetkit.data.preprocess import Preprocessing
from resnetkit.errors import ModelFileRefused, ResnetkitError
from resnetkit.tables import read_csv
from resnetkit.tasks import classification, multilabel
from resnetkit.tasks.task import TASKS, Task
from resnetkit.weights.files import Model, load_model


@dataclass(frozen=True)
class Listed:
    """A line of split.csv."""

    path: str
    label: str
    part: str
    hash: str


@dataclass(frozen=True)
class Answered:
    """A line of predictions.csv: the class that an image is of, the likeliest one, and its probability.

    Where images have several labels both are all of them with a | between, and `loss` is the image's.
    """

    path: str
    label: str
    predicted: str
    probability: float
    loss: float | None = None

    @property
    def right(self) -> bool:
        return self.label == self.predicted


@dataclass(frozen=True)
class Record:
    """A run as its folder tells it. What a run writes at its end (`metrics`, `answers`, `model`) may be lacking."""

    folder: Path
    command: dict[str, Any]
    environment: dict[str, Any]
    recipe: dict[str, Any]
    recipe_text: str
    classes: list[str]
    preprocessing: Preprocessing
    images: list[Listed]
    bad: list[dict[str, str]]
    epochs: list[dict[str, float]]
    events: list[dict[str, Any]]
    metrics: dict[str, Any] | None
    answers: list[Answered]
    reliability: list[dict[str, float]]
    model: Model | None

    @property
    def task(self) -> Task:
        """Runs of the first version do not name theirs."""
        return TASKS[self.command.get("task", classification.NAME)]

    @property
    def multilabel(self) -> bool:
        return self.task is TASKS[multilabel.NAME]

    def classes_of(self, label: str) -> list[str]:
        """The classes that a label names: of one label an image itself."""
        return [name for name in label.split(SEPARATOR) if name] if self.multilabel else [label]

    @cached_property
    def parts(self) -> Counter[str]:
        """Images by part."""
        return Counter(image.part for image in self.images)


def compiled(command: dict[str, Any]) -> str:
    """What a run's command.json says of --compile: off, on or graphs; before there were graphs a bool."""
    kept = command.get("compile", False)
    return {False: "off", True: "on"}.get(kept, kept)


def read_record(folder: Path, metrics: dict[str, Any] | None = None) -> Record:
    """Read a run folder, whose `metrics` may be given before it has them. Raises ResnetkitError where there is none, or
    its files are not what a run writes."""
    if not (folder / "command.json").is_file():
        raise ResnetkitError(f"{folder} is not a run folder: it has no command.json")
    written, model = folder / "evaluation" / "metrics.json", folder / "model.safetensors"
    try:
        recipe_text = (folder / "recipe.toml").read_text(encoding="utf-8", errors="surrogateescape")
        return Record(
            folder,
            command=_json(folder / "command.json"),
            environment=_json(folder / "environment.json"),
            recipe=tomllib.loads(recipe_text),
            recipe_text=recipe_text,
            classes=_json(folder / "classes.json"),
            preprocessing=Preprocessing.from_dict(_json(folder / "preprocessing.json")),
            images=[Listed(r["path"], r["class"], r["split"], r["hash"]) for r in read_csv(folder / "split.csv")],
            bad=_rows(folder / "bad_files.csv"),
            epochs=[_numbers(row) for row in _rows(folder / "results.csv")],
            events=_events(folder / "log.jsonl"),
            metrics=_json(written) if metrics is None and written.exists() else metrics,
            answers=_answers(folder / "evaluation" / "predictions.csv"),
            reliability=[_numbers(row) for row in _rows(folder / "evaluation" / "reliability.csv")],
            model=load_model(model) if model.exists() else None,
        )
    except ModelFileRefused:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResnetkitError(f"{folder}: a file in it is missing or damaged: {error}") from error


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))


def _rows(path: Path) -> list[dict[str, str]]:
    return read_csv(path) if path.exists() else []


def _numbers(row: dict[str, str]) -> dict[str, float]:
    return {key: float(value) for key, value in row.items() if value}


def _answers(path: Path) -> list[Answered]:
    return [
        Answered(
            r["path"], r["class"], r["predicted"], float(r["probability"]), float(r["loss"]) if "loss" in r else None
        )
        for r in _rows(path)
    ]


def _events(path: Path) -> list[dict[str, Any]]:
    """The journal; the last line of a run that was killed may be torn."""
    events = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return events
