"""resnet data check|split|stats"""

import sys
from collections import Counter
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resnetkit.cli.output import JsonFlag, print_json
from resnetkit.errors import ResnetkitError, TooManyBadImages, did_you_mean

if TYPE_CHECKING:
    from resnetkit.data.health import Finding
    from resnetkit.data.ingest import Ingested
    from resnetkit.data.preprocess import Preprocessing
    from resnetkit.data.survey import Survey

app = typer.Typer(help="Look at a set of images before training on it.", no_args_is_help=True, rich_markup_mode=None)

Data = Annotated[str, typer.Argument(metavar="DATA", help="Anything that `resnet train` reads.")]


@app.command()
def check(
    data: Data,
    out: Annotated[
        Path | None, typer.Option(help="A folder for findings.csv, duplicates.csv and contact_sheet.png.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 2 on a leak or a picture in two classes.")] = False,
    img_size: Annotated[
        int | None, typer.Option(min=8, help="Pixels a side that the network sees [default: as in training].")
    ] = None,
    framing: Annotated[
        str | None,
        typer.Option(help="How a photo becomes a square: crop, letterbox or squash [default: as in training]."),
    ] = None,
    max_bad: Annotated[float, typer.Option(min=0, max=1, help="Share of unreadable images tolerated.")] = 0.1,
    json: JsonFlag = False,
) -> None:
    """Find what spoils a training or its figures: leaks between parts, bad files, poor classes. Worst first.

    A set without a test part is looked at as training will divide it.
    """
    from resnetkit.data import health
    from resnetkit.data.copies import find_copies
    from resnetkit.data.datasets import open_dataset, with_test
    from resnetkit.data.preprocess import FRAMINGS
    from resnetkit.data.survey import survey

    if framing is not None and framing not in FRAMINGS:
        raise ResnetkitError(f"framing {framing!r}: {did_you_mean(framing, FRAMINGS)}")
    whole = dataset = open_dataset(data)
    refusal = None
    try:
        dataset = with_test(whole)
    except ResnetkitError as error:  # what cannot train is looked at, too
        refusal = str(error)
    divided = dataset.parts.keys() != whole.parts.keys()
    seen = survey(dataset)
    given = {"img_size": img_size, "framing": framing}
    preprocessing = _preprocessing(seen.ingested, {name: value for name, value in given.items() if value is not None})
    copies = find_copies(seen.pictures)
    # Images of one small size are seen as they are.
    size = preprocessing.size if img_size or seen.ingested.side != preprocessing.size else None
    findings = health.check(seen, copies, size, crop=preprocessing.framing == "crop")
    grave = any(finding.grave for finding in findings)
    if out:
        from resnetkit.data.contact_sheet import draw_contact_sheet

        health.write_tables(findings, copies, seen, out)
        part = next(iter(seen.dataset.parts.values()))
        draw_contact_sheet(
            seen.dataset.parts.get("train", part), seen.dataset.classes, preprocessing, out / "contact_sheet.png"
        )
    if json:
        division = {"divided_by_training": divided, "refused_by_training": refusal}
        print_json(_summary(seen) | division | {"grave": grave, "findings": [found.to_dict() for found in findings]})
    else:
        by = ", as training divides them" if divided else f"\ntraining refuses it: {refusal}" if refusal else ""
        _print_findings(seen, findings, by, out)
    count = len(seen.pictures) + seen.unreadable
    if seen.unreadable > max_bad * count:
        raise TooManyBadImages(
            f"{seen.unreadable} of {count} images cannot be read (--max-bad {max_bad:g}); "
            + ("findings.csv names them" if out else "--out lists them")
        )
    if strict and grave:
        sys.exit(2)


@app.command()
def stats(data: Data, json: JsonFlag = False) -> None:
    """Count and measure: images by class and part, sizes, channels, mean and deviation."""
    from resnetkit.data.datasets import open_dataset
    from resnetkit.data.statistics import statistics
    from resnetkit.data.survey import survey

    figures = statistics(survey(open_dataset(data)))
    if json:
        print_json(figures)
    else:
        _print_statistics(figures)


@app.command()
def split(
    data: Data,
    out: Annotated[Path, typer.Option(metavar="FILE.csv", help="The table; `resnet train FILE.csv` reads it.")],
    by: Annotated[
        str,
        typer.Option(
            help="hash: stable as data grows, but for groups of near copies; group: no group in two parts; random: by "
            "--seed."
        ),
    ] = "hash",
    val: Annotated[float, typer.Option(help="Share of the images for validation.")] = 0.1,
    test: Annotated[float, typer.Option(help="Share of the images for the test.")] = 0.2,
    group: Annotated[
        str | None,
        typer.Option(metavar="REGEX", help="What names the group in a path, in one bracket [default: the folder]."),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(help="Divide the training images into so many folds as well, with a table for each to train on."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="For random, and for ties of group [default: 0].")] = None,
    keep_duplicates_together: Annotated[bool, typer.Option(help="Copies of one picture stay in one part.")] = True,
    json: JsonFlag = False,
) -> None:
    """Divide images into train, val and test, whatever parts they had."""
    from resnetkit.data.datasets import open_dataset
    from resnetkit.data.resplit import SplitPlan, divide, require_files, require_other, table_paths, write_division
    from resnetkit.data.survey import survey

    plan = SplitPlan(
        by=by, val=val, test=test, group=group, folds=folds, seed=seed, keep_copies=keep_duplicates_together
    )
    require_other(out, data)
    for file in table_paths(out, folds or 0)[1:]:
        require_other(file, data)
    dataset = open_dataset(data)
    require_files(dataset)
    seen = survey(dataset)
    division = divide(seen, plan)
    files = write_division(division, seen, out)
    counts = division.counts()
    if json:
        held_out = {"folds": [str(file) for file in files[1:]]} if folds else {}
        print_json({"file": str(out), "left_out": len(seen.bad)} | counts | held_out)
        return
    total = len(division.pictures)
    print(", ".join(f"{part} {count:,} ({count / total:.1%})" for part, count in counts.items()))
    if seen.bad:
        print(f"left out: {len(seen.bad):,} that cannot be read or are of no part")
    for file in files:
        print(f"next: resnet train {quote(str(file))}")


def _preprocessing(read: "Ingested", settings: dict[str, Any]) -> "Preprocessing":
    """What `resnet train` would do with the images, by the recipe that it chooses, but for the normalisation."""
    from resnetkit.data.preprocess import PHOTO_SIZE, count_channels
    from resnetkit.training.prepare import DEFAULT_RECIPES, framed_for, is_small
    from resnetkit.training.recipe import load_recipe

    flat = (0.5,) * count_channels(read.channels)
    recipe = load_recipe(read.dataset.recipe or DEFAULT_RECIPES[is_small(read), False], settings)
    moments = {"channels": read.channels, "mean": flat, "std": flat}
    return framed_for(read, recipe, (PHOTO_SIZE, PHOTO_SIZE), moments)


def _summary(seen: "Survey") -> dict[str, Any]:
    parts = Counter(picture.part for picture in seen.pictures)
    return {
        "data": seen.dataset.name,
        "images": seen.total,
        "classes": len(seen.dataset.classes),
        "parts": parts,
        "unreadable": seen.unreadable,
    }


def _print_findings(seen: "Survey", findings: list["Finding"], by: str, out: Path | None) -> None:
    parts = ", ".join(f"{name} {count:,}" for name, count in _summary(seen)["parts"].items())
    print(f"{seen.dataset.name}: {seen.total:,} images of {len(seen.dataset.classes):,} classes; {parts}{by}")
    for finding in findings:
        record = finding.to_dict()
        print(f"\n{'LEAK: ' if finding.kind == 'leak' else ''}{record['message']}")
        for example in record["examples"]:
            print(f"    {example}")
        if record["count"] > len(record["examples"]):
            print(f"    and {record['count'] - len(record['examples']):,} more" + ("" if out else "; --out lists all"))
        print(f"  -> {record['cure']}")
    if not findings:
        print("nothing amiss was found")
    if out:
        print(f"\nwritten to {out}: findings.csv, duplicates.csv, contact_sheet.png")


def _print_statistics(figures: dict[str, Any]) -> None:
    parts = list(figures["parts"])
    width = max(map(len, [*figures["classes"], "class"]))
    print(f"{'class':{width}}" + "".join(f"{part:>9}" for part in parts))
    for name, counts in figures["classes"].items():
        print(f"{name:{width}}" + "".join(f"{counts[part]:9,}" for part in parts))
    print(f"{'all':{width}}" + "".join(f"{count:9,}" for count in figures["parts"].values()))
    print(f"\n{'':10}{'least':>10}{'median':>10}{'most':>10}")
    for key in ("width", "height", "aspect", "bytes"):
        print(f"{key:10}" + "".join(f"{figures[key][name]:10,}" for name in ("min", "median", "max")))
    words = {"rgb": "with colour", "grey": "grey"}
    colours = ", ".join(f"{n:,} {words.get(kind, f'of {kind} bands')}" for kind, n in figures["channels"].items())
    print(f"\n{colours}, {figures['unreadable']:,} unreadable")
    print(f"{figures['bytes']['total'] / 2**20:,.1f} MiB; mean {figures['mean']}, deviation {figures['std']}")
