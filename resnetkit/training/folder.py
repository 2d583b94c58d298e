"""The run folder: what a run was told, what it found, and where its files lie."""

import json
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

import torch

from resnetkit.atomic import write_text
from resnetkit.data.preprocess import Preprocessing
from resnetkit.errors import ResnetkitError, refused
from resnetkit.tables import csv_text
from resnetkit.training.prepare import Prepared
from resnetkit.training.recipe import Recipe, load_recipe, to_toml


class Folder:
    """A folder of one verb: what it was told, written once."""

    verb, kind, command = "train", "run", "command.json"

    def __init__(self, path: Path) -> None:
        self.path = path

    @staticmethod
    def require_free(path: Path) -> None:
        """Raise ResnetkitError when the folder holds something already."""
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ResnetkitError(
                f"{path} is there already and would be overwritten; choose another --out, or --resume it"
            )

    @classmethod
    def create(cls, path: Path, prepared: Prepared, command: dict[str, Any]) -> Self:
        """Make the folder and write what the run was told. Raises ResnetkitError when it holds something already."""
        cls.require_free(path)
        texts = {
            "recipe.toml": to_toml(prepared.recipe),
            "environment.json": json.dumps(environment(torch.device(command["device"])), indent=2) + "\n",
            "classes.json": json.dumps(prepared.dataset.classes, indent=2, ensure_ascii=False) + "\n",
            "preprocessing.json": json.dumps(prepared.preprocessing.to_dict(), indent=2) + "\n",
            "split.csv": prepared.split_table,
            "bad_files.csv": csv_text(("path", "reason"), prepared.dataset.bad),
            cls.command: json.dumps(command, indent=2) + "\n",  # last: with it the folder is what it is
        }
        for name, text in texts.items():
            write_text(path / name, text)
        return cls(path)

    @classmethod
    def reopen(cls, path: Path) -> Self:
        """A folder that was begun. Raises ResnetkitError where there is none."""
        if not (path / cls.command).is_file():
            raise ResnetkitError(f"{path}: not a {cls.kind} folder; give the folder that `resnet {cls.verb}` printed")
        return cls(path)

    def read(self, name: str) -> Any:
        """One of the folder's JSON files."""
        return json.loads((self.path / name).read_text(encoding="utf-8"))

    def recipe(self) -> Recipe:
        return load_recipe(str(self.path / "recipe.toml"))

    def left_out(self, prepared: Prepared) -> list[str]:
        """A line on the files that bad_files.csv lists, if any."""
        bad = prepared.dataset.bad
        return [f"bad    {len(bad)} files are left out: {self.path / 'bad_files.csv'}"] if bad else []

    def check_same_data(self, prepared: Prepared) -> None:
        """Raises ResnetkitError where the images or what is done to their pixels are others than when the run began."""
        if (self.path / "split.csv").read_bytes() != prepared.split_table.encode(errors="surrogateescape"):
            raise ResnetkitError(
                f"{self.path}: the data has changed since the run began, or this version reads it otherwise (split.csv "
                "has what it was); start a new run"
            )
        if Preprocessing.from_dict(self.read("preprocessing.json")) != prepared.preprocessing:
            raise ResnetkitError(
                f"{self.path}: pixels would be prepared otherwise than when the run began (preprocessing.json); "
                "start a new run"
            )


class RunFolder(Folder):
    """Names of the files in a run folder."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.model = path / "model.safetensors"
        self.last = path / "checkpoints" / "last.safetensors"
        self.best = path / "checkpoints" / "best.safetensors"
        self.curves = path / "plots" / "curves.png"
        self.range_test = path / "plots" / "lr_range_test.png"
        self.confusion = path / "plots" / "confusion_matrix.png"
        self.metrics = path / "evaluation" / "metrics.json"

    @property
    def finished(self) -> bool:
        return self.metrics.exists() and self.model.exists()


def new_run_path(name: str) -> Path:
    """Claim the first free runs/<name>-<number>, so that two runs begun together do not share one."""
    number = 1
    while True:
        path = Path("runs") / f"{name}-{number}"
        try:
            path.mkdir(parents=True)
        except OSError as error:
            if isinstance(error, FileExistsError) and path.parent.is_dir():  # not a link to nowhere
                number += 1
                continue
            cure = "choose another place with --out"
            raise refused(path, error, cure, full=f"free some space or {cure}") from error
        else:
            return path


def environment(device: torch.device | None = None) -> dict[str, Any]:
    """Versions, machine and commit of what runs, on `device` where that is a GPU."""
    packages = {}
    for name in ("resnetkit", "torch", "numpy", "pillow", "safetensors"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "not installed"
    return {
        "python": sys.version.split()[0],
        "packages": packages,
        "commit": _commit(),
        "platform": platform.platform(),
        "processor": processor(),
        "gpu": torch.cuda.get_device_name(device) if device is not None and device.type == "cuda" else None,
        "threads": torch.get_num_threads(),
    }


def _commit() -> str:
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():  # installed: a repository further up is not ours
        return "unknown"
    git = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        found = subprocess.run(git, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return found.stdout.strip() or "unknown"


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
