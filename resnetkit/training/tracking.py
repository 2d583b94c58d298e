"""A run followed by TensorBoard, MLflow or Weights & Biases: each hears what the journal writes, and may fail alone."""

import os
import sys
import time
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

from resnetkit.errors import ResnetkitError, did_you_mean

PROJECT = "resnetkit"  # the experiment or project, where MLFLOW_EXPERIMENT_NAME or WANDB_PROJECT names no other

Place = dict[str, str]  # where a run is kept, so that a resume finds it; written to command.json


class Tracker:
    """Follows a run through the journal's events, each with its values; this one looks away. What it needs of its
    library it imports itself."""

    def __init__(self, folder: Path, place: Place) -> None:
        self.folder, self.place = folder, place

    @staticmethod
    def begin() -> Place:
        """Before the run folder is there: what can be refused, and the place of a new run."""
        return {}

    def started(self, settings: dict[str, Any]) -> None: ...

    def resumed(self, values: dict[str, Any]) -> None:
        """`values["epochs"]` are finished; those that were told past them come again."""

    def epoch(self, values: dict[str, Any]) -> None: ...

    def interrupted(self, values: dict[str, Any]) -> None: ...

    def diverged(self, values: dict[str, Any]) -> None: ...

    def failed(self, values: dict[str, Any]) -> None:
        """By a full disk, too little memory or another error; a resume may go on."""

    def finished(self, metrics: dict[str, Any]) -> None: ...


class TensorBoard(Tracker):
    """Event files in the run folder."""

    @staticmethod
    def begin() -> Place:
        return {"folder": "tensorboard"}

    def started(self, settings: dict[str, Any]) -> None:
        self._open(first=None)
        rows = "\n".join(f"| {key} | {value} |" for key, value in settings.items())
        self._writer.add_text("settings", f"| setting | value |\n|---|---|\n{rows}")
        self._epoch = 0

    def resumed(self, values: dict[str, Any]) -> None:
        self._epoch = values["epochs"]
        self._open(first=self._epoch + 1)

    def epoch(self, values: dict[str, Any]) -> None:
        self._epoch = values["epoch"]
        self._write(_numbers(values))

    def finished(self, metrics: dict[str, Any]) -> None:
        self._write(_final(metrics))
        self._writer.close()

    def interrupted(self, values: dict[str, Any]) -> None:
        self._writer.close()

    diverged = failed = interrupted

    def _open(self, first: int | None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(self.folder / self.place["folder"], purge_step=first)

    def _write(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, self._epoch)
        self._writer.flush()


class MLflow(Tracker):
    """A run at MLFLOW_TRACKING_URI, or where MLflow keeps its own by default."""

    def __init__(self, folder: Path, place: Place) -> None:
        from mlflow import MlflowClient

        super().__init__(folder, place)
        self._client, self._run = MlflowClient(place.get("uri")), place["run"]

    @staticmethod
    def begin() -> Place:
        import mlflow

        uri, name = mlflow.get_tracking_uri(), os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        client = mlflow.MlflowClient(uri)
        known = client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else client.create_experiment(name)
        place = {"run": client.create_run(experiment).info.run_id}
        return place if "@" in uri else place | {"uri": uri}  # a password is not written down

    def started(self, settings: dict[str, Any]) -> None:
        from mlflow.entities import Param

        self._client.update_run(self._run, name=self.folder.name)
        self._client.log_batch(self._run, params=[Param(key, str(value)) for key, value in settings.items()])

    def resumed(self, values: dict[str, Any]) -> None:
        self._client.update_run(self._run, status="RUNNING")

    def epoch(self, values: dict[str, Any]) -> None:
        self._write(_numbers(values), values["epoch"])

    def finished(self, metrics: dict[str, Any]) -> None:
        self._write(_final(metrics), 0)
        self._client.set_terminated(self._run, "FINISHED")

    def interrupted(self, values: dict[str, Any]) -> None:
        self._client.set_terminated(self._run, "KILLED")

    def diverged(self, values: dict[str, Any]) -> None:
        self._client.set_terminated(self._run, "FAILED")

    failed = diverged

    def _write(self, values: dict[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self._run, [Metric(name, value, now, step) for name, value in values.items()])


class WeightsAndBiases(Tracker):
    """A run of the project WANDB_PROJECT; offline with WANDB_MODE=offline, its files in the run folder."""

    @staticmethod
    def begin() -> Place:
        import wandb

        if wandb.setup().settings.mode == "online":
            wandb.login()
        return {"run": uuid4().hex[:8], "project": os.environ.get("WANDB_PROJECT", PROJECT)}

    def started(self, settings: dict[str, Any]) -> None:
        self._open()
        self._run.config.update(settings)

    def resumed(self, values: dict[str, Any]) -> None:
        self._open()

    def epoch(self, values: dict[str, Any]) -> None:
        self._run.log(_numbers(values), step=values["epoch"])

    def finished(self, metrics: dict[str, Any]) -> None:
        self._run.summary.update(_final(metrics))
        self._run.finish()

    def interrupted(self, values: dict[str, Any]) -> None:
        self._run.finish(exit_code=1)

    diverged = failed = interrupted

    def _open(self) -> None:
        import wandb

        self._run = wandb.init(
            project=self.place["project"],
            id=self.place["run"],
            name=self.folder.name,
            dir=self.folder,
            resume="allow",
            settings=wandb.Settings(console="off", silent=True),
        )


TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WeightsAndBiases}


class Trackers:
    """Those of a run. One that fails is named once and told nothing more; the run goes on."""

    def __init__(self, folder: Path, places: dict[str, Place]) -> None:
        self._following: dict[str, Tracker] = {}
        for name, place in places.items():
            try:
                self._following[name] = TRACKERS[name](folder, place)
            except Exception as error:
                self._give_up(name, error)

    def tell(self, event: str, values: dict[str, Any]) -> None:
        for name, tracker in list(self._following.items()):
            try:
                getattr(tracker, event)(values)
            except Exception as error:  # the network, a disk, a library: none is worth the training
                self._give_up(name, error)

    def _give_up(self, name: str, error: Exception) -> None:
        self._following.pop(name, None)
        print(f"resnet: {name} does not follow the run any more: {_line(error)}", file=sys.stderr)


def require(names: Iterable[str]) -> None:
    """Raise ResnetkitError for a tracker that is not known, or whose package is not here."""
    for name in names:
        if name not in TRACKERS:
            raise ResnetkitError(f"no tracker is called {name!r}; {did_you_mean(name, TRACKERS)}")
        found = find_spec(name)
        if found is None or found.origin is None:  # a mere folder of that name, as wandb makes, has no origin
            raise ResnetkitError(f"track {name} needs a package that is not here: pip install 'resnetkit[{name}]'")


def begin(names: Iterable[str]) -> dict[str, Place]:
    """A place for a new run at each tracker. Raises ResnetkitError where there is none to be had."""
    places = {}
    for name in names:
        try:
            places[name] = TRACKERS[name].begin()
        except Exception as error:
            raise ResnetkitError(f"track {name}: {_line(error)}") from error
    return places


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if isinstance(value, (int, float)) and name != "epoch"}


def _final(metrics: dict[str, Any]) -> dict[str, float]:
    """Under names of their own, as an epoch's figures may be of the same part: final_test_top1, ..."""
    return {f"final_{metrics['split']}_{name}": value for name, value in _numbers(metrics).items()}


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
