"""resnet tune"""

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from resnetkit.cli.output import JsonFlag, MaxBadOption, WorkersOption, print_json

if TYPE_CHECKING:
    from resnetkit.training.tune import Tuning


def tune(
    data: Annotated[str | None, typer.Argument(help="Anything that `resnet train` reads.")] = None,
    model: Annotated[str | None, typer.Option(help="A network that `resnet models` lists.")] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="The recipe to start from, by name or TOML file; by default chosen by the images."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images, in every trial.")] = None,
    trials: Annotated[int | None, typer.Option(help="Trainings, the recipe itself among them [default: 20].")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the recipe, not to be varied; may be repeated."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Repeats a search on a CPU.")] = None,
    out: Annotated[Path | None, typer.Option(help="The folder [default: runs/tune-<data>-<number>].")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Run the trials that are missing.")] = None,
    max_bad: MaxBadOption = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    workers: WorkersOption = None,
    json: JsonFlag = False,
) -> None:
    """Search for better settings, on training images alone. They are written as a recipe."""
    from resnetkit.training.recipe import parse_settings
    from resnetkit.training.tune import tune as search

    settings = parse_settings({"model": model, "epochs": epochs, "seed": seed}, set_)
    found = search(
        data,
        trials=trials,
        recipe=recipe,
        out=out,
        resume=resume,
        device=device,
        workers=workers,
        max_bad=max_bad,
        **settings,
    )
    if json:
        print_json(found.to_dict())
    else:
        print(_describe(found))


def _describe(found: "Tuning") -> str:
    """The trials as a table, which settings mattered, how good the best is, and the next command."""
    from resnetkit.training.run import MAX_BAD

    figures, best, own = found.metrics, found.best, found.trials[0]
    low, high = figures["top1_interval"]
    lines = [
        *_table(found),
        "",
        _what_mattered(found),
        f"best: trial {best.number}, top-1 {best.top1:.2%} (95 % interval {low:.2%} to {high:.2%}), "
        f"loss {best.loss:.4f} on {figures['n']:,} images held out"
        + (f"; the recipe as it was had {own.top1:.2%}" if best.number and own.top1 is not None else ""),
        (
            f"The best of {len(found.trials)} trials is flattered by the choice: expect less on new images."
            if best.number
            else "No trial was better than the recipe as it was."
        )
        + " Only training images were used; the test part was not run.",
        f"next: resnet train {quote(found.data)} --recipe {quote(str(found.recipe))}"
        + (f" --max-bad {found.max_bad}" if found.max_bad != MAX_BAD else ""),
    ]
    return "\n".join(lines)


def _table(found: "Tuning") -> list[str]:
    names = list(found.best.settings)
    rows = [["trial", *names, "top-1", "loss", "epochs", "outcome"]]
    for trial in found.trials:
        settings = [value if isinstance(value := trial.settings[name], str) else f"{value:.3g}" for name in names]
        top1, loss = ("-", "-") if trial.top1 is None else (f"{trial.top1:.2%}", f"{trial.loss:.4f}")
        outcome = "best" if trial == found.best else trial.outcome
        rows.append([str(trial.number), *settings, top1, loss, str(trial.epochs), outcome])
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths)) for row in rows]


def _what_mattered(found: "Tuning") -> str:
    if found.importances is None:
        return "what mattered: too few trials, or too alike, to say"
    shares = ", ".join(f"{name} {share:.0%}" for name, share in found.importances.items())
    return f"what mattered: {shares} (a hint, from {len(found.trials)} trials)"
