"""What to try next, and whether to go on with it: an Optuna study in a file. The only module that needs Optuna."""

from pathlib import Path
from typing import Any

from resnetkit.atomic import drop_torn_line
from resnetkit.errors import ResnetkitError, refused
from resnetkit.training.search_space import Space, Span
from resnetkit.training.trial import Trial

UNGUIDED = 5  # trials that are drawn at random, and complete ones before any is pruned
SHELTERED = 1 / 3  # share of the epochs in which no trial is pruned
BEST = 0.25  # share of the trials whose settings are compared with those of all
ENOUGH = 12  # trials; fewer say nothing of which settings matter


def require_optuna() -> Any:
    """The module Optuna. Raises ResnetkitError where it is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise ResnetkitError("a search needs Optuna; pip install 'resnetkit[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


class Search:
    """The trials of a search, kept in `file`: only finished ones, so one that was interrupted leaves no trace.

    Trial 0 is `start`. What comes next is a function of `seed` and of the trials before (tree-structured Parzen
    estimator, Bergstra et al. 2011); one whose score is below the median of those before, at its epoch, is given up.
    """

    def __init__(self, file: Path, space: Space, *, start: dict[str, Any], epochs: int, seed: int) -> None:
        self._optuna = optuna = require_optuna()
        self._file = file
        drop_torn_line(file)  # Optuna would write on behind it
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(file)))
        self._study = optuna.create_study(storage=storage, study_name="tune", direction="maximize", load_if_exists=True)
        self._start, self._seed = start, seed
        self._pruner = optuna.pruners.MedianPruner(
            n_startup_trials=UNGUIDED, n_warmup_steps=1 + round(SHELTERED * epochs)
        )
        self._distributions = {
            name: optuna.distributions.FloatDistribution(values.low, values.high, log=values.log)
            if isinstance(values, Span)
            else optuna.distributions.CategoricalDistribution(values.words)
            for name, values in space.items()
        }

    @property
    def trials(self) -> list[Trial]:
        return [Trial(**trial.user_attrs["trial"]) for trial in self._study.trials]

    def ask(self) -> "Attempt":
        """The next trial to run."""
        before = self._study.trials
        sampler = self._optuna.samplers.TPESampler(
            seed=(self._seed * 1_000_003 + len(before)) % 2**32, n_startup_trials=UNGUIDED
        )
        # In memory, since Optuna would keep a trial in progress as one that never ends.
        study = self._optuna.create_study(direction="maximize", sampler=sampler, pruner=self._pruner)
        study.add_trials(before)
        if not before:
            study.enqueue_trial(self._start)
        return Attempt(study.ask(self._distributions))

    def record(self, attempt: "Attempt", trial: Trial) -> None:
        """Keep what came of it. Raises ResourceExhausted where the disk gives out, ResnetkitError where it
        refuses."""
        states = self._optuna.trial.TrialState
        complete, diverged = trial.outcome == "complete", trial.outcome == "diverged"
        kept = self._optuna.trial.create_trial(
            state=states.COMPLETE if complete else states.PRUNED,
            value=attempt.scores[trial.epochs] if complete else None,
            params=attempt.settings,
            distributions=self._distributions,
            # One that diverged counts as the worst, however it began.
            intermediate_values={} if diverged else attempt.scores,
            user_attrs={"trial": vars(trial)},
        )
        try:
            self._study.add_trial(kept)
        except OSError as error:
            raise refused(f"{self._file}: not written", error, full="free some space and resume") from error

    def best(self) -> Trial | None:
        """The complete trial of the highest score, the first of equals."""
        complete = [t for t in self._study.trials if t.state == self._optuna.trial.TrialState.COMPLETE]
        return Trial(**max(complete, key=lambda t: t.value).user_attrs["trial"]) if complete else None

    def importances(self) -> dict[str, float] | None:
        """Share of each setting in what sets the best trials apart (PED-ANOVA, Watanabe et al. 2023), the largest
        first; None where the trials are too few or too alike to say. One given up counts by its last score."""
        optuna = self._optuna
        scored = [trial for trial in self._study.trials if trial.intermediate_values]
        scores = [(trial.params, max(trial.intermediate_values.items())[1]) for trial in scored]
        if len(scores) < ENOUGH or len({value for _, value in scores}) == 1:
            return None
        study = optuna.create_study(direction="maximize")
        for params, value in scores:
            study.add_trial(optuna.trial.create_trial(params=params, distributions=self._distributions, value=value))
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=BEST)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
        return {name: float(share) for name, share in found.items()}


class Attempt:
    """A trial in progress: the settings to try and its scores by epoch."""

    def __init__(self, trial: Any) -> None:
        self._trial = trial
        self.settings: dict[str, Any] = trial.params
        self.scores: dict[int, float] = {}

    def go_on(self, epoch: int, score: float) -> bool:
        """Note the score after an epoch; False where the trial is not worth another."""
        self.scores[epoch] = score
        self._trial.report(score, epoch)
        return not self._trial.should_prune()
