"""resnet lab"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resnetkit.cli.output import JsonFlag, print_json

if TYPE_CHECKING:
    from resnetkit.lab.experiment import Experiment

app = typer.Typer(help="The experiments of the papers: what shortcuts do.", no_args_is_help=True)

Data = Annotated[str | None, typer.Argument(help="Labelled images; anything that `resnet train` reads.")]
Quick = Annotated[bool, typer.Option("--quick", help="A size that takes minutes.")]
Seeds = Annotated[int | None, typer.Option(help="Repetitions, from which the intervals come.")]
Out = Annotated[
    Path | None, typer.Option(help="The folder; one begun before goes on [default: runs/lab-<name>-<number>].")
]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Depths = Annotated[list[int] | None, typer.Option("--depths", help="A depth; may be repeated.")]


@app.command()
def gradients(
    data: Data = None,
    depths: Depths = None,
    quick: Quick = False,
    seeds: Seeds = None,
    out: Out = None,
    json: JsonFlag = False,
) -> None:
    """Gradients and outputs by block: plain against residual, with and without norm; on noise without DATA."""
    from resnetkit.lab.gradients import Gradients

    _conduct(Gradients, quick, out, json, data=data, depths=depths, seeds=seeds)


def _conduct(kind: "type[Experiment]", quick: bool, out: Path | None, json: bool, **given: Any) -> None:
    """Run an experiment with the settings that were given, and print what it says."""
    from resnetkit.lab.experiment import conduct

    settings = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items() if v not in (None, [])}
    result = conduct(kind(**(kind.QUICK if quick else {}) | settings), out)
    if json:
        print_json({"report": str(result.page)} | {k: v for k, v in result.record.items() if k != "cells"})
        return
    for finding in result.record["findings"]:
        print(f"{finding['claim']}: {finding['verdict']}. {finding['says']}")
    print(result.page)
