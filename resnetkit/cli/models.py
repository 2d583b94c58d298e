"""resnet models"""

from dataclasses import asdict
from fnmatch import fnmatchcase
from typing import Annotated, Any

import typer

from resnetkit.cli.output import JsonFlag, print_json
from resnetkit.errors import ResnetkitError


def models(
    pattern: Annotated[str, typer.Argument(help="A shell pattern, such as 'resnext*'.")] = "*",
    weights: Annotated[bool, typer.Option("--weights", help="List published weights instead.")] = False,
    json: JsonFlag = False,
) -> None:
    """List the networks that have a name, or published weights."""
    if weights:
        _list_weights(pattern, json)
        return
    from resnetkit.architecture.variants import spec, variants

    names = variants(pattern)
    if not names:
        raise ResnetkitError(f"no network matches {pattern!r}; `resnet models` lists all")
    for name in names:
        row = spec(name)
        order = "pre-activation " if row.preactivation else ""
        facts = {
            "name": name,
            "block": row.block,
            "preactivation": row.preactivation,
            "depths": row.depths,
            "widths": row.widths,
        }
        if json:
            print_json(facts)
        else:
            print(f"{name:24} {order + row.block + ' blocks':32} {'-'.join(map(str, row.depths))}")
    if not json and pattern == "*":
        print("\nalso: any resnet{6n+2 or 9n+2}_cifar, wide_resnet{6n+4}_{k}_cifar, resnext{9n+2}_{C}x{w}d_cifar;")
        print("'plain' in place of 'resnet' for the same network without shortcuts (plain34, plain56_cifar)")


def _list_weights(pattern: str, json: bool) -> None:
    from resnetkit.weights.catalogue import catalogue

    entries = [e for e in catalogue() if any(fnmatchcase(name, pattern) for name in (*e.names, e.variant))]
    if not entries:
        raise ResnetkitError(f"no published weights match {pattern!r}; `resnet models --weights` lists all")
    if json:
        for entry in entries:
            print_json(asdict(entry))
        return
    for entry in entries:
        top1, top5 = ("" if share is None else f"{share:.2%}" for share in (entry.top1, entry.top5))
        if len(entries) == 1:
            _print_facts(asdict(entry) | {"place": entry.place, "top1": top1, "top5": top5})
        else:
            print(f"{entry.id:38} {top1:>7}  {entry.licence or '':16} {entry.place}")
    print("\ntype the id where a model goes: resnet predict ID photo.jpg, resnet train photos --weights ID")


def _print_facts(facts: dict[str, Any]) -> None:
    """All that is known of published weights, a line each."""
    pixels = {f"preprocessing {key}": value for key, value in facts["preprocessing"].items()}
    for name, value in (facts | pixels).items():
        if name != "preprocessing" and value not in (None, "", {}):
            print(f"{name}: {value}")
