"""resnet train"""

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from resnetkit.cli.output import PIXELS, JsonFlag, MaxBadOption, WorkersOption, describe_metrics, print_json


def train(
    data: Annotated[
        str | None, typer.Argument(help="`digits`, a folder of class folders, a CSV, zip, tar, Parquet, idx or CIFAR.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A network that `resnet models` lists.")] = None,
    weights: Annotated[
        str | None,
        typer.Option(metavar="RUN|MODEL|CHECKPOINT", help="Start from trained weights; --model is theirs by default."),
    ] = None,
    preprocessing: Annotated[
        str | None,
        typer.Option(help=f"Pixels of a foreign checkpoint in --weights: {PIXELS} (left out: mean 0, std 1)."),
    ] = None,
    freeze: Annotated[
        str | None, typer.Option(help="The last part that keeps its weights: stem, stages.1, ..., backbone.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images.")] = None,
    batch_size: Annotated[str | None, typer.Option(help="Images a step; auto takes the most that fit.")] = None,
    lr: Annotated[str | None, typer.Option(help="Peak learning rate; auto finds one by a range test.")] = None,
    img_size: Annotated[int | None, typer.Option(help="Pixels a side that the network sees.")] = None,
    framing: Annotated[
        str | None, typer.Option(help="How a photo becomes a square: crop, letterbox or squash.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Repeats a run on a CPU bit for bit.")] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="photos, small, finetune, finetune_small, digits, cifar10_fast, cifar10_strong, imagenet_paper, "
            "imagenet_v2, imagenet_a1, imagenet_a2, imagenet_a3, imagenet_fast or a TOML file (hyphens will do, too); "
            "by default chosen by the images."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting of the recipe; may be repeated.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder [default: runs/<data>-<model>-<number>].")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Go on with an interrupted run, exactly.")] = None,
    max_bad: MaxBadOption = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    workers: WorkersOption = None,
    cache: Annotated[
        bool, typer.Option("--cache", help="Keep photos decoded in ~/.cache/resnetkit, for fast later epochs.")
    ] = False,
    track: Annotated[
        list[str] | None,
        typer.Option(metavar="TRACKER", help="tensorboard, mlflow or wandb follows the run; may be repeated."),
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="plain, checkpoint (less of it, more time, the same numbers) or auto.")
    ] = None,
    memory_budget: Annotated[
        str | None, typer.Option(metavar="SIZE", help="What auto may use, as 4GiB [default: a share of what is free].")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or auto: what is faster here [default: the recipe's, auto].")
    ] = None,
    compile: Annotated[
        str | None,
        typer.Option(
            help="off, on (blocks by torch.compile), graphs (on, and CUDA graphs) or auto: off or on, what ends sooner "
            "[default: off]."
        ),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Train a network on images, test it, and write a run folder."""
    from resnetkit.training.recipe import parse_settings
    from resnetkit.training.run import train as train_run

    flags = {"model": model, "weights": weights, "preprocessing": preprocessing, "freeze": freeze, "epochs": epochs}
    flags |= {"batch_size": batch_size, "lr": lr, "img_size": img_size, "framing": framing, "seed": seed}
    flags |= {"precision": precision}
    settings = parse_settings(flags | {"cache": cache or None}, set_)
    run = train_run(
        data,
        recipe=recipe,
        out=out,
        resume=resume,
        device=device,
        workers=workers,
        max_bad=max_bad,
        track=track or (),
        memory=memory,
        memory_budget=memory_budget,
        compile=compile,
        **settings,
    )
    if json:
        files = {"model": "model.safetensors", "report": "report.html"}
        print_json({"run": str(run.folder)} | {k: str(run.folder / v) for k, v in files.items()} | run.metrics)
    else:
        print(describe_metrics(run.metrics))
        print(f"run folder: {run.folder}")
        print(f"report: {run.folder / 'report.html'}")
        print(f"next: resnet predict {quote(str(run.folder))} IMAGE...")
