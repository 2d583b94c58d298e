"""What verbs print: JSON for programs, sentences for people."""

import json
from typing import Annotated, Any

import typer

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else on standard output.")]


def print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


def describe_metrics(metrics: dict[str, Any]) -> str:
    low, high = metrics["top1_interval"]
    return (
        f"{metrics['split']}: top-1 {metrics['top1']:.2%} (95 % interval {low:.2%} to {high:.2%}), "
        f"top-5 {metrics['top5']:.2%}, loss {metrics['loss']:.4f}, calibration error {metrics['ece']:.2%}, "
        f"{metrics['n']:,} images"
    )
