"""resnet lab"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resnetkit.cli.output import JsonFlag, print_json

if TYPE_CHECKING:
    from resnetkit.lab.experiment import Experiment

app = typer.Typer(help="The experiments of the papers: what shortcuts do.", no_args_is_help=True)

Data = Annotated[str | None, typer.Argument(help="Labelled images; anything that `resnet train` reads.")]
Quick = Annotated[bool, typer.Option("--quick", help="A smaller size: minutes, of CIFAR-10 up to an hour.")]
Seeds = Annotated[int | None, typer.Option(help="Repetitions, from which the intervals come.")]
Out = Annotated[
    Path | None, typer.Option(help="The folder; one begun before goes on [default: runs/lab-<name>-<number>].")
]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Images = Annotated[int | None, typer.Option(help="So many images at most.")]
Batch = Annotated[int | None, typer.Option("--batch-size", "--batch", help="Images a step.")]
Steps = Annotated[int | None, typer.Option(help="Training steps of every network.")]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training images.")]
Depths = Annotated[list[int] | None, typer.Option("--depths", help="A depth; may be repeated.")]


@app.command()
def gradients(
    data: Data = None,
    depths: Depths = None,
    batch: Batch = None,
    steps: Steps = None,
    quick: Quick = False,
    seeds: Seeds = None,
    device: Device = None,
    out: Out = None,
    json: JsonFlag = False,
) -> None:
    """Gradients and outputs by block: plain against residual, with and without norm; on noise without DATA."""
    from resnetkit.lab.gradients import Gradients

    given = {"data": data, "depths": depths, "batch": batch, "steps": steps, "seeds": seeds, "device": device}
    _conduct(Gradients, quick, out, json, **given)


@app.command()
def degradation(
    data: Data = None,
    depths: Depths = None,
    images: Images = None,
    size: Annotated[
        int | None, typer.Option("--img-size", "--size", help="Their side in pixels [default: their own].")
    ] = None,
    epochs: Epochs = None,
    batch: Batch = None,
    quick: Quick = False,
    seeds: Seeds = None,
    device: Device = None,
    out: Out = None,
    json: JsonFlag = False,
) -> None:
    """Plain and residual networks of several depths trained alike; without --quick the paper's recipe, for a GPU."""
    from resnetkit.lab.degradation import Degradation

    given = {"data": data, "depths": depths, "images": images, "size": size, "epochs": epochs, "batch": batch}
    _conduct(Degradation, quick, out, json, **given, seeds=seeds, device=device)


@app.command()
def depth(
    data: Data = None,
    depths: Depths = None,
    steps: Steps = None,
    batch: Batch = None,
    quick: Quick = False,
    seeds: Seeds = None,
    device: Device = None,
    out: Out = None,
    json: JsonFlag = False,
) -> None:
    """Does the loss fall, how long does a step take, how much memory: 20 to 1,202 layers and beyond."""
    from resnetkit.lab.depth import Depth

    _conduct(Depth, quick, out, json, data=data, depths=depths, steps=steps, batch=batch, seeds=seeds, device=device)


@app.command()
def ablate(
    model: Annotated[
        str | None, typer.Argument(help="A residual network: a run, a model file or a checkpoint; else one is trained.")
    ] = None,
    against: Annotated[str | None, typer.Option(metavar="MODEL", help="Its trained plain twin.")] = None,
    data: Annotated[str | None, typer.Option(help="Labelled images to try them on; with MODEL needed.")] = None,
    images: Images = None,
    depth: Annotated[int | None, typer.Option(help="Layers of the networks that are trained.")] = None,
    epochs: Epochs = None,
    quick: Quick = False,
    seeds: Seeds = None,
    device: Device = None,
    out: Out = None,
    json: JsonFlag = False,
) -> None:
    """Leave out blocks of a trained network, exchange them, and see through how many blocks its gradients come."""
    from resnetkit.lab.ablate import Ablate

    given = {"model": model, "against": against, "data": data, "images": images, "depth": depth}
    _conduct(Ablate, quick, out, json, **given, epochs=epochs, seeds=seeds, device=device)


@app.command()
def landscape(
    data: Data = None,
    depths: Depths = None,
    images: Images = None,
    epochs: Epochs = None,
    points: Annotated[int | None, typer.Option(help="Places along the line.")] = None,
    side: Annotated[int | None, typer.Option(help="Places each way over the plane.")] = None,
    quick: Quick = False,
    seeds: Seeds = None,
    device: Device = None,
    out: Out = None,
    json: JsonFlag = False,
) -> None:
    """The loss around a minimum, with and without shortcuts, along filter-normalised directions."""
    from resnetkit.lab.landscape import Landscape

    given = {"data": data, "depths": depths, "images": images, "epochs": epochs, "points": points, "side": side}
    _conduct(Landscape, quick, out, json, **given, seeds=seeds, device=device)


def _conduct(kind: "type[Experiment]", quick: bool, out: Path | None, json: bool, **given: Any) -> None:
    """Run an experiment with the settings that were given, and print what it says."""
    from resnetkit.lab.experiment import conduct, processes_for

    settings = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items() if v not in (None, [])}
    experiment = kind(**(kind.QUICK if quick else {}) | settings)
    result = conduct(experiment, out, processes_for(experiment))
    if json:
        print_json({"report": str(result.page)} | {k: v for k, v in result.record.items() if k != "cells"})
        return
    for finding in result.record["findings"]:
        print(f"{finding['claim']}: {finding['verdict']}. {finding['says']}")
    print(result.page)
