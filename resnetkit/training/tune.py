"""A search over a recipe: short trainings on a part of the training images, judged on the rest of them."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

import torch

from resnetkit.cores import default_workers
from resnetkit.data.datasets import absolute
from resnetkit.device import find_device, within_memory
from resnetkit.errors import Diverged, Interrupted, ResnetkitError, require_number
from resnetkit.evaluation.intervals import wilson_interval
from resnetkit.evaluation.plots import draw_trials
from resnetkit.training.allocator import keep_freed_memory
from resnetkit.training.epochs import FramedBatches
from resnetkit.training.folder import new_run_path
from resnetkit.training.interrupt import StopRequest
from resnetkit.training.loop import AfterStep
from resnetkit.training.precision import resolve_precision
from resnetkit.training.prepare import Prepared, Source, divide, read_source
from resnetkit.training.recipe import Recipe
from resnetkit.training.run import MAX_BAD, new_state, require_batches_of_two
from resnetkit.training.search import Search, require_optuna
from resnetkit.training.search_space import Space, Span, rounded, search_space
from resnetkit.training.state import TrainingState
from resnetkit.training.trial import Trial, run_trial
from resnetkit.training.tune_folder import TuneFolder

TRIALS = 20
HOLDOUT = 0.2  # share of the training images, of a recipe that has none


@dataclass(frozen=True)
class Tuning:
    """A finished search. `importances` are shares of the settings, or None where too few trials say anything; `max_bad`
    is the share of the images that might be unreadable."""

    folder: Path
    data: str
    trials: list[Trial]
    best: Trial
    held_out: int
    importances: dict[str, float] | None
    max_bad: float = MAX_BAD

    @property
    def recipe(self) -> Path:
        return self.folder / "best.toml"

    @property
    def metrics(self) -> dict[str, Any]:
        """The best trial's figures. Of many trials the best is chosen by them, which flatters it."""
        assert self.best.top1 is not None
        interval = wilson_interval(round(self.best.top1 * self.held_out), self.held_out)
        figures = {"split": "holdout", "top1": self.best.top1, "top1_interval": interval}
        return figures | {"loss": self.best.loss, "n": self.held_out}

    def to_dict(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "recipe": str(self.recipe),
            **self.metrics,
            "best": self.best.to_dict(),
            "importances": self.importances,
            "max_bad": self.max_bad,
            "trials": [trial.to_dict() for trial in self.trials],
        }


def tune(
    data: str | Path | None = None,
    *,
    trials: int | None = None,
    recipe: str | Path | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    device: str = "auto",
    workers: int | None = None,
    max_bad: float | None = None,
    **settings: Any,
) -> Tuning:
    """Try the settings of a recipe that matter and write the best as a recipe, best.toml.

    `settings` replace those of the recipe, as in `train`, and are left as they are. Each of the `trials` (20) trains on
    the training images but for the recipe's holdout, a fifth where it has none, and is judged on that; the test part
    takes no part. A share `max_bad` of the images (a tenth) may be unreadable and is left out. Trial 0 is the recipe
    itself. The folder is `out`, by default runs/tune-<data>-<number>; `resume` runs the trials that an interrupted
    search lacks. Raises ResnetkitError, of which Interrupted means resumable.
    """
    require_optuna()
    if workers is not None:
        require_number("workers", workers, 0)
    if resume is not None:
        if any(given is not None for given in (data, recipe, out, trials, max_bad)) or settings:
            raise ResnetkitError("a resumed search keeps its data and settings; give --resume alone")
        job = _reopen(Path(resume), device)
    elif data is None:
        raise ResnetkitError("nothing to tune on: name a dataset (`digits` needs no files), or --resume a search")
    else:
        tolerated = MAX_BAD if max_bad is None else max_bad
        job = _begin(data, recipe, settings, TRIALS if trials is None else trials, out, device, tolerated)
    with within_memory(job.device, "lower batch_size or img_size"):
        return _search(job, default_workers(job.device.type) if workers is None else workers)


@dataclass(frozen=True)
class _Job:
    """A search to run: the user's recipe, and what the trials are handed."""

    folder: TuneFolder
    told: dict[str, Any]
    recipe: Recipe
    prepared: Prepared
    device: torch.device

    @property
    def space(self) -> Space:
        return search_space(self.recipe, set(self.told["fixed"]), self.prepared.preprocessing.channels)


def _begin(
    data: str | Path,
    recipe: str | Path | None,
    settings: dict[str, Any],
    trials: int,
    out: str | Path | None,
    device: str,
    max_bad: float,
) -> _Job:
    require_number("trials", trials, 1)
    if out is not None:
        TuneFolder.require_free(Path(out))
    place = find_device(device)
    source = read_source(data, recipe, settings, max_bad)
    if source.recipe.patience:
        raise ResnetkitError(
            "setting patience ends a run early, and a trial is judged after its last epoch; leave it out"
        )
    if not search_space(source.recipe, set(settings), source.read.channels):
        raise ResnetkitError("every setting that a search varies is given; leave one of them to it")
    prepared = _divided(source)
    new_state(prepared, place)  # refuses what cannot be built before there is a folder
    told = {"argv": sys.argv, "data": absolute(data), "max_bad": max_bad, "device": str(place), "trials": trials}
    told |= {"fixed": sorted(settings), "precision": resolve_precision(source.recipe.precision, place)}
    path = Path(out) if out is not None else new_run_path(f"tune-{prepared.dataset.name}")
    folder = TuneFolder.create(path, replace(prepared, recipe=source.recipe), told)
    return _Job(folder, told, source.recipe, _for_trials(prepared, told), place)


def _reopen(path: Path, device: str) -> _Job:
    folder = TuneFolder.reopen(path)
    told = folder.read(folder.command)
    place = find_device(told["device"] if device == "auto" else device)
    source = read_source(told["data"], folder.recipe(), {}, told.get("max_bad", MAX_BAD))
    prepared = _divided(source)
    folder.check_same_data(prepared)
    return _Job(folder, told, source.recipe, _for_trials(prepared, told), place)


def _divided(source: Source) -> Prepared:
    """The data with a holdout, the recipe's own or HOLDOUT. Raises ResnetkitError where top1 cannot judge, or batch
    norm has too few images."""
    recipe = source.recipe
    prepared = divide(replace(source, recipe=recipe.model_copy(update={"holdout": recipe.holdout or HOLDOUT})))
    if prepared.task.CHOOSING != "top1":
        raise ResnetkitError(f"{prepared.dataset.name}: a search judges by top-1, so it needs one label an image")
    require_batches_of_two(prepared)
    return prepared


def _for_trials(prepared: Prepared, told: dict[str, Any]) -> Prepared:
    """Without the parts that no trial may see."""
    parts = {name: prepared.parts[name] for name in ("train", "holdout")}
    return replace(prepared, parts=parts).with_settings(precision=told["precision"])


def _search(job: _Job, workers: int) -> Tuning:
    """Run the trials that are missing and write what came of all."""
    folder, recipe, prepared, space = job.folder, job.recipe, job.prepared, job.space
    search = Search(
        folder.study,
        space,
        start={name: getattr(recipe, name) for name in space},
        epochs=recipe.epochs,
        seed=recipe.seed,
    )
    held = FramedBatches(prepared.parts["holdout"], prepared.preprocessing, workers)
    count, cure = job.told["trials"], f"go on with: resnet tune --resume {quote(str(folder.path))}"
    _say(*_introduction(job))
    if job.device.type == "cpu":
        keep_freed_memory()
    with StopRequest() as stop:
        for number in range(len(search.trials), count):
            attempt = search.ask()
            trial = run_trial(
                prepared,
                held,
                job.device,
                workers,
                number=number,
                settings=rounded(attempt.settings, space, recipe),
                go_on=attempt.go_on,
                after_step=_unless(stop, f"stopped in trial {number} of {count}, which runs again; {cure}"),
            )
            search.record(attempt, trial)
            folder.write_table(search.trials, space)
            _say(f"trial {number:>{len(str(count - 1))}} of {count}  {describe_trial(trial)}")
    return _conclude(job, search)


def _unless(stop: StopRequest, message: str) -> AfterStep:
    """What raises Interrupted after a step when a stop is requested."""

    def after_step(state: TrainingState, waited: float) -> None:
        if stop.requested:
            raise Interrupted(message)

    return after_step


def _conclude(job: _Job, search: Search) -> Tuning:
    best = search.best()
    if best is None:
        raise Diverged(f"every trial diverged; lower lr (the recipe's is {job.recipe.lr:g}) or lengthen warmup_epochs")
    job.folder.write_best(job.recipe, best)
    rows = [trial.to_dict() | trial.settings for trial in search.trials]
    scales = {name: isinstance(values, Span) and values.log for name, values in job.space.items()}
    draw_trials(rows, best.number, scales, job.folder.plot)
    held = len(job.prepared.parts["holdout"])
    found = search.trials, best, held, search.importances()
    return Tuning(job.folder.path, job.told["data"], *found, job.told.get("max_bad", MAX_BAD))


def describe_trial(trial: Trial) -> str:
    """A trial as one line: its settings and how it went."""
    settings = "  ".join(
        f"{name} {value}" if isinstance(value, str) else f"{name} {value:<8.3g}"
        for name, value in trial.settings.items()
    )
    figures = "diverged" if trial.top1 is None else f"top-1 {trial.top1:.2%}  loss {trial.loss:.4f}"
    given_up = f", given up at epoch {trial.epochs}" if trial.outcome == "pruned" else ""
    return f"{settings}  {figures}  {trial.seconds:.0f} s{given_up}"


def _introduction(job: _Job) -> list[str]:
    parts, recipe = job.prepared.parts, job.recipe
    held = len(parts["holdout"])
    lines = [
        f"data   {job.prepared.dataset.name}: trials train on {len(parts['train']):,} images and are judged on "
        f"{held:,} others held out of the training part; no other part is run",
        *job.folder.left_out(job.prepared),
        f"model  {recipe.model}, {recipe.epochs} epochs a trial, on {job.device} in {job.told['precision']}",
        f"search {', '.join(job.space)}; trial 0 is the recipe as it is",
        f"folder {job.folder.path}",
    ]
    if leaked := job.prepared.leaks["holdout"]:
        lines.append(f"leak   {leaked} images held out are training images too, so the figures flatter")
    return lines


def _say(*lines: str) -> None:
    print(*lines, sep="\n", file=sys.stderr, flush=True)
