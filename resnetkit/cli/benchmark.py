"""resnet benchmark"""

import json as json_module
from pathlib import Path
from typing import Annotated, Any

import typer

from resnetkit.cli.output import JsonFlag, print_json

VOID = 7  # exit code of a run from which nothing may be concluded


def benchmark(
    kind: Annotated[str, typer.Argument(metavar="step|inference|loader|memory|startup", help="What is measured.")],
    model: Annotated[str, typer.Argument(help="A network that `resnet models` lists.")] = "resnet18",
    against: Annotated[
        str,
        typer.Option(
            metavar="PEER,...",
            help="torchvision, timm, transformers, cifar-repository, keras-notebook, keras-applications; of loaders "
            "pillow, torchvision-folder. NAME-default, NAME-best, NAME-mixed and NAME-compiled are one way to run it.",
        ),
    ] = "",
    img_size: Annotated[
        int | None, typer.Option(min=8, help="Pixels a side [default: 224; 32 of CIFAR names].")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images at a time.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="Ours: float32 or bfloat16, of step and memory also auto.")
    ] = None,
    compile: Annotated[str, typer.Option(help="Ours, of a step: off, on or graphs, as in resnet train.")] = "off",
    rounds: Annotated[
        int, typer.Option(help="Turns that each gets, 5 at least; more until the control is steady.")
    ] = 9,
    seconds: Annotated[float, typer.Option(min=0, help="Of a turn, at least.")] = 0.3,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Cores, the same for each [default: all that a CPU quota pays for]."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    data: Annotated[Path | None, typer.Option(help="Photos for the loader [default: made for the purpose].")] = None,
    out: Annotated[Path | None, typer.Option(dir_okay=False, help="Write what --json prints to a file, too.")] = None,
    json: JsonFlag = False,
) -> None:
    """Measure speed or memory side by side with peers. Exit code 7 where the machine was not quiet."""
    from resnetkit.atomic import write_text
    from resnetkit.benchmark.run import benchmark as run

    found = run(
        kind,
        model,
        against=[word.strip() for word in against.split(",") if word.strip()],
        rounds=rounds,
        seconds=seconds,
        tell=lambda line: typer.echo(line, err=True),
        img_size=img_size,
        batch_size=batch_size,
        precision=precision,
        threads=threads,
        device=device,
        data=data,
        compile=compile,
    )
    if json:
        print_json(found)
    else:
        print(_describe(found))
    if out is not None:
        write_text(out, json_module.dumps(found, indent=2) + "\n")
    if found["void"]:
        raise typer.Exit(VOID)


def _describe(found: dict[str, Any]) -> str:
    from resnetkit.benchmark.ratios import four_digits

    unit, job, own = found["unit"], found["job"], found["ours"]
    where = found["environment"]["gpu"] or f"{job['threads']} cores"
    lines = [
        f"{found['benchmark']} of {job['model']}, {job['batch_size']} images of {job['img_size']} px, "
        f"{where}: {four_digits(own[unit]['median'])} {unit.replace('_', ' ')} ({own['runs']})"
    ]
    if "share_of_ceiling" in own:
        ceiling = found["ceilings"][f"{own['precision']}_gflops"]
        lines.append(f"{own['share_of_ceiling']:.0%} of the {ceiling:,.0f} GFLOP/s of a matrix product")
        copied = found["ceilings"]["copy_gb_per_second"]
        lines[-1] += f", {own['share_of_copy']:.0%} of the {copied:,.0f} GB/s of a copy"
    if first := found.get("train_digits_first_step_seconds"):
        lines.append(f"resnet train digits has taken its first step {first['median']:.2f} s after its start")
    for name, peer in found["peers"].items():
        lines.append(f"{_interval(peer['ratio'])} times better than {name}: {peer['runs']}")
        if (work := peer.get("work")) and abs(work["macs_ratio"] - 1) > 0.001:
            lines[-1] += f"; it multiplies {work['macs_ratio']:.3g} times as much"
    lines.append(
        f"control: ours against ours {_interval(found['control'])}; {found['rounds']} rounds, "
        f"{found['dropped']} dropped for drift"
    )
    return "\n".join([*lines, *(f"VOID: {reason}" for reason in found["reasons"])])


def _interval(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.2f} (95 % interval {ratio['low']:.2f} to {ratio['high']:.2f})"
