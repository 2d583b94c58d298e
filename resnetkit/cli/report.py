"""resnet report"""

from pathlib import Path
from typing import Annotated

import typer

from resnetkit.cli.output import JsonFlag, print_json


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    json: JsonFlag = False,
) -> None:
    """Make the page of a run, report.html. It says how good it is, where it fails and what to do next."""
    from resnetkit.reporting.report import write_report

    page = write_report(run)
    if json:
        print_json({"report": str(page), "bytes": page.stat().st_size})
    else:
        print(page)
