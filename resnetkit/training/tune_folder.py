"""The folder of a search."""

from pathlib import Path

from resnetkit.atomic import write_text
from resnetkit.tables import csv_text
from resnetkit.training.folder import Folder
from resnetkit.training.recipe import Recipe, to_toml
from resnetkit.training.search_space import Space
from resnetkit.training.trial import Trial


class TuneFolder(Folder):
    """Names of the files in the folder of a search; its recipe.toml is the recipe that the search began from."""

    verb, kind, command = "tune", "tune", "tune.json"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.study = path / "study.jsonl"
        self.table = path / "trials.csv"
        self.best = path / "best.toml"
        self.plot = path / "plots" / "trials.png"

    def write_table(self, trials: list[Trial], space: Space) -> None:
        names = ("trial", "outcome", "epochs", "seconds", "top1", "loss")
        rows = [
            [*(trial.to_dict()[name] for name in names), *(trial.settings[name] for name in space)] for trial in trials
        ]
        write_text(self.table, csv_text((*names, *space), rows))

    def write_best(self, recipe: Recipe, best: Trial) -> None:
        write_text(self.best, to_toml(recipe.model_copy(update=best.settings)))
