"""resnet models"""

from typing import Annotated

import typer

from resnetkit.cli.output import JsonFlag, print_json
from resnetkit.errors import ResnetkitError


def models(
    pattern: Annotated[str, typer.Argument(help="A shell pattern, such as 'resnext*'.")] = "*",
    json: JsonFlag = False,
) -> None:
    """List the networks that can be built by name."""
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
