"""The page of a run."""

from pathlib import Path
from typing import Any

from resnetkit.atomic import write_text
from resnetkit.reporting import charts, wording
from resnetkit.reporting.album import Album
from resnetkit.reporting.judgement import verdict
from resnetkit.reporting.record import read_record
from resnetkit.reporting.sections import sections

PAGE = "report.html"
PARTS = {"train": "training", "holdout": "held-out", "val": "validation", "test": "test"}


def write_report(folder: Path, metrics: dict[str, Any] | None = None) -> Path:
    """Make report.html in a run folder from what lies there: one file that needs nothing else.

    `metrics` are those of a run that has not written them yet. Photos are read from the data that the run was trained
    on; where they are gone the page says so. A section whose data the run has not written is left out. Raises
    ResnetkitError where there is no run, ResourceExhausted where the disk gives out.
    """
    run = read_record(folder, metrics)
    album = Album(run.command["data"], run.preprocessing)
    facts = {
        "run": run,
        "name": folder.resolve().name,
        "verdict": verdict(run),
        "sections": sections(run, album),
        "album": album,
        "parts": PARTS,
    }
    page = render("page.html", facts)
    write_text(folder / PAGE, page.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
    return folder / PAGE


def render(template: str, facts: dict[str, Any]) -> str:
    """A page from one of the templates."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("resnetkit.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {name: getattr(wording, name) for name in ("percent", "interval", "count", "short")}
    return environment.get_template(template).render(facts | {"charts": charts})
