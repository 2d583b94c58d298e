"""Class folders, on the disk or inside an archive."""

from collections.abc import Collection, Sequence
from pathlib import Path

import torch

from resnetkit.data.encoded import Encoded
from resnetkit.data.image_files import Scan, Steps, begins_as_image
from resnetkit.data.parts import SPLIT_WORDS, SPLITS, Dataset, Part, require_clear_names, same_but_for_case
from resnetkit.errors import ResnetkitError, did_you_mean

Images = Sequence[tuple[Steps, Encoded]]
STRANGE = "begins as an image, but is not called one; rename it if it is one"
NO_CLASS = "lies beside the class folders, so it has no class"


def folder(root: Path, found: Scan) -> Dataset:
    """Class folders, or any of train/, val/ and test/ of class folders. Names are paths below `root`."""
    others = ((path.relative_to(root).parts, path) for path in found.others)
    strange = [(steps, STRANGE) for steps, path in others if len(steps) > 1 and begins_as_image(path)]
    return class_folders(root, root.resolve().name, found.images, found.folders, [*found.refused, *strange])


def class_folders(
    where: Path, name: str, images: Images, folders: Collection[Steps], refused: Sequence[tuple[Steps, str]]
) -> Dataset:
    """The dataset of images by the steps of their paths. `folders` has those of one and two steps, empty ones too.

    Raises ResnetkitError for classes that are empty, that training does not know, or that cannot be told apart.
    """
    splits = _splits(where, folders)
    below = {split: sorted(s[-1] for s in folders if s[:-1] == place) for split, place in splits.items()}
    classes = below["train"] if "train" in below else next(iter(below.values()))
    require_clear_names(where, classes)
    index = {class_: label for label, class_ in enumerate(classes)}
    for split, names in below.items():
        _require_known(where.joinpath(*splits[split]), names, classes)
    rows: dict[str, list[tuple[Steps, Encoded, int]]] = {split: [] for split in splits}
    bad = [("/".join(steps), reason) for steps, reason in refused]
    of_place = {place: split for split, place in splits.items()}
    for steps, image in images:
        place = steps[:1] if steps[:1] in of_place else ()
        if place not in of_place or len(steps) < len(place) + 2:
            bad.append(("/".join(steps), NO_CLASS))
        else:
            rows[of_place[place]].append((steps, image, index[steps[len(place)]]))
    for split, place in splits.items():
        if split in ("train", "all"):
            _require_images(where, place, classes, {label for *_, label in rows[split]}, bad)
    parts = {
        split: Part([image for _, image, _ in own], torch.tensor([label for *_, label in own]), _names(own))
        for split, own in rows.items()
        if own
    }
    if not parts:
        raise ResnetkitError(f"{where}: no class folders with images in it{_first(bad)}")
    return Dataset(name, classes, parts, bad)


def _splits(where: Path, folders: Collection[Steps]) -> dict[str, Steps]:
    found: dict[str, Steps] = {}
    holding = {steps[:1] for steps in folders if len(steps) == 2}  # one without folders in it is a class of that name
    # Testing is the test of Training, where there is none of that name; else a class may be called so.
    known = {SPLITS.get(name.lower()) for (name,) in holding}
    called = SPLIT_WORDS if "train" in known and "test" not in known else SPLITS
    for place in sorted(holding):
        if split := called.get(place[0].lower()):
            if split in found:
                raise ResnetkitError(f"{where}: {found[split][0]} and {place[0]} are the same part; keep one")
            found[split] = place
    return found or {"all": ()}


def _require_known(place: Path, names: list[str], classes: list[str]) -> None:
    for name in names:
        if name not in classes:
            twins = [c for c in classes if same_but_for_case(c) == same_but_for_case(name)]
            cure = (
                f"it differs from {twins[0]!a} by case, Unicode form or a blank at an end; rename it" if twins else ""
            )
            raise ResnetkitError(
                f"{place / name}: a class that training does not know; {cure or did_you_mean(name, classes)}"
            )


def _require_images(
    where: Path, place: Steps, classes: list[str], labels: set[int], bad: list[tuple[str, str]]
) -> None:
    for label, name in enumerate(classes):
        if label not in labels:
            start = "/".join((*place, name))
            there = _first([(path, reason) for path, reason in bad if f"{path}/".startswith(f"{start}/")])
            raise ResnetkitError(
                f"{where.joinpath(*place, name)}: the class has no image; add some or remove the folder{there}"
            )


def _first(bad: list[tuple[str, str]]) -> str:
    return f" ({len(bad)} left out there; {bad[0][0]}: {bad[0][1]})" if bad else ""


def _names(rows: list[tuple[Steps, Encoded, int]]) -> list[str]:
    return ["/".join(steps) for steps, _, _ in rows]
