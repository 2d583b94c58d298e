"""Networks that an experiment trains for itself: each is a run of the training package, in a run folder."""

import json
import sys
from pathlib import Path

from resnetkit.device import find_device
from resnetkit.lab.experiment import TOLD
from resnetkit.training.folder import RunFolder
from resnetkit.training.prepare import Prepared
from resnetkit.training.run import new_state
from resnetkit.training.tracking import Trackers
from resnetkit.training.trainer import Run, Trainer


def trained(folder: Path, prepared: Prepared, device: str) -> Run:
    """The run in `folder`, which lies in the experiment's runs/: begun, gone on with from its last checkpoint, or
    finished long ago; in the precision that the experiment has settled on.

    Raises Diverged where the loss is no number, Interrupted when told to stop.
    """
    place = find_device(device)
    told = json.loads((folder.parents[1] / TOLD).read_text(encoding="utf-8"))
    prepared = prepared.with_settings(precision=told["precision"])
    state, notes = new_state(prepared, place)
    if (folder / RunFolder.command).is_file():
        run = RunFolder.reopen(folder)
        if run.finished:
            return Run(folder, run.read("evaluation/metrics.json"))
        run.check_same_data(prepared)
    else:
        command = {"argv": sys.argv, "data": prepared.dataset.name, "max_bad": 0.0, "device": str(place)}
        run = RunFolder.create(folder, prepared, command | {"task": prepared.task.NAME, "track": {}})
    if run.last.exists():
        state.restore(run.last)
    return Trainer(prepared, run, state, place, 0, notes, Trackers(folder, {})).run()
