"""Copies of images in a folder a class."""

import filecmp
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from resnetkit.atomic import write_atomically
from resnetkit.errors import ResnetkitError
from resnetkit.inference.predictor import named_paths
from resnetkit.inference.results import NONE
from resnetkit.tasks import classification


class Sorter:
    """Copies images into `folder`/<label>/, those without a label into `folder`/none of these/.

    Nothing is moved or overwritten: where another image has the name, a number is added. What an interrupted call
    copied is found there and not copied again. `sources` are where the images come from, as `find_images` takes it;
    raises ResnetkitError when `folder` lies in one, for its copies would be images to sort the next time, and for a
    `task` of several labels an image.
    """

    def __init__(self, folder: Path, sources: Iterable[str | Path], task: str = classification.NAME) -> None:
        if task != classification.NAME:
            raise ResnetkitError(
                "an image of several labels has no one folder to be sorted into; use --out answers.csv"
            )
        for source in (path for given in sources for path in named_paths(given)):
            if source.is_dir() and folder.resolve().is_relative_to(source.resolve()):
                raise ResnetkitError(f"{folder} lies in {source}, whose images are to be sorted; choose another folder")
        self.folder = folder
        self.claimed: set[Path] = set()

    def copy(self, image: Path, label: str | None) -> Path:
        """Copy one image; where it lies now. Raises ResnetkitError when it cannot be written."""
        place = self.folder / _folder_name(label or NONE)
        target, number = place / image.name, 1
        while target in self.claimed or (target.exists() and not filecmp.cmp(image, target, shallow=False)):
            number += 1
            target = place / f"{image.stem}-{number}{image.suffix}"
        self.claimed.add(target)
        if not target.exists():
            write_atomically(target, lambda partial: shutil.copy2(image, partial))
        return target


def _folder_name(label: str) -> str:
    """A class name as one folder that is neither hidden nor elsewhere."""
    name = label.replace(os.sep, "_").replace("\0", "_")
    return f"_{name}" if name.startswith(".") else name
