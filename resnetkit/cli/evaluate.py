"""resnet evaluate"""

from pathlib import Path
from typing import Annotated

import typer

from resnetkit.cli.output import JsonFlag, describe_metrics, print_json


def evaluate(
    source: Annotated[Path, typer.Argument(metavar="RUN|MODEL", help="A run folder or a model file.")],
    data: Annotated[str | None, typer.Option(help="Labelled images [default: what the run was trained on].")] = None,
    split: Annotated[str | None, typer.Option(help="Which part of them [default: test, else val].")] = None,
    precision: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 256,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    workers: Annotated[int, typer.Option(min=0, help="Processes that decode photos.")] = 0,
    max_bad: Annotated[float, typer.Option(min=0, max=1, help="Share of unreadable images left out.")] = 0.0,
    json: JsonFlag = False,
) -> None:
    """Measure a trained network on labelled images."""
    from resnetkit.evaluation.evaluate import evaluate as evaluate_model

    metrics = evaluate_model(
        source,
        data,
        split=split,
        precision=precision,
        device=device,
        batch_size=batch_size,
        workers=workers,
        max_bad=max_bad,
    )
    if json:
        print_json(metrics)
    else:
        print(describe_metrics(metrics))
