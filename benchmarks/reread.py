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
from resnetkit.lab.experiment import results_text, told
from resnetkit.lab.gradients import Gradients
from resnetkit.lab.landscape import Landscape

RESULTS = Path(__file__).parents[1] / "results"
KINDS = {kind.NAME: kind for kind in (Gradients, Degradation, Depth, Landscape, Ablate)}


def reread(record: dict) -> dict:
    settings = {name: tuple(v) if isinstance(v, list) else v for name, v in record["settings"].items()}
    return record | told(KINDS[record["experiment"]](**settings).read(record["cells"]))


def main() -> None:
    named = [RESULTS / f"lab-{name}.json" for name in sys.argv[1:]]
    for file in named or RESULTS.glob("lab-*.json"):
        write_text(file, results_text(reread(json.loads(file.read_text()))))


if __name__ == "__main__":
    main()
