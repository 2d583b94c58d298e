"""The findings of results/lab-*.json read again from their cells, after a rule or its words were changed.

python benchmarks/reread.py [NAME ...]     gradients degradation ablate-twin ... [default: those that are there]

Nothing is measured: cells, date and the commit that measured them stay.
"""

import json
import sys
from pathlib import Path

from resnetkit.atomic import write_text
from resnetkit.lab.ablate import Ablate
from resnetkit.lab.degradation import Degradation
from resnetkit.lab.depth import Depth
from resnetkit.lab.experiment import as_recorded, results_text
from resnetkit.lab.gradients import Gradients
from resnetkit.lab.landscape import Landscape

RESULTS = Path(__file__).parents[1] / "results"
KINDS = {kind.NAME: kind for kind in (Gradients, Degradation, Depth, Landscape, Ablate)}


def reread(record: dict) -> dict:
    settings = {name: tuple(v) if isinstance(v, list) else v for name, v in record["settings"].items()}
    return record | as_recorded(KINDS[record["experiment"]](**settings).read(record["cells"]))


def main() -> None:
    files = {file.stem.removeprefix("lab-"): file for file in sorted(RESULTS.glob("lab-*.json"))}
    for name in sys.argv[1:] or files:
        if name not in files:
            sys.exit(f"no result of {name}; there are {', '.join(files)}")
        write_text(files[name], results_text(reread(json.loads(files[name].read_text()))))


if __name__ == "__main__":
    main()
