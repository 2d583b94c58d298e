"""Cells side by side: the same numbers, and an interruption that loses no training."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from resnetkit.cores import usable_cores
from resnetkit.lab.cells import measured
from resnetkit.lab.experiment import conduct
from resnetkit.lab.gradients import Gradients

LONG = "lab degradation digits --depths 8 --depths 14 --images 1400 --epochs 200 --batch 16 --seeds 1 --out".split()


def test_numbers_are_those_of_cells_one_after_the_other(tmp_path):
    experiment = Gradients(data="digits", depths=(8,), batch=8, steps=2, seeds=1)
    alone, together = (conduct(experiment, tmp_path / str(n), processes=n).record["cells"] for n in (1, 2))
    assert [row.keys() for row in alone] == [row.keys() for row in together]
    for a, b in zip(alone, together):
        assert a["net"] == b["net"] and a["setting"] == b["setting"]
        assert a["gradients"] == pytest.approx(b["gradients"], rel=1e-3, nan_ok=True)


def test_an_error_of_one_ends_all():
    with pytest.raises(ValueError, match="could not convert"):
        list(measured(float, ["1", "2", "word", *"3456"], 2, lambda: False))


def children(process):
    return Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()


def all_gone(processes):
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{process}").exists() for process in processes) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not any(Path(f"/proc/{process}").exists() for process in processes)


def test_an_interruption_saves_the_trainings_and_leaves_no_process(tmp_path):
    command = [sys.executable, "-m", "resnetkit.cli.main", *LONG, str(tmp_path / "a")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    runs, deadline = tmp_path / "a/runs", time.monotonic() + 120
    while len(list(runs.glob("*/log.jsonl"))) < len(usable_cores()[:2]) and time.monotonic() < deadline:
        time.sleep(0.1)
    started = children(process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75 and "to go on" in errors and "Traceback" not in errors, errors
    assert started and all_gone(started)
    assert list(runs.glob("*/checkpoints/*"))


def test_processes_end_with_a_parent_that_is_killed():
    code = "import time; from resnetkit.lab.cells import measured\n"
    code += "if __name__ == '__main__': list(measured(time.sleep, [100, 100], 2, lambda: False))"
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while len(started := children(process)) < 3 and time.monotonic() < deadline:  # the two and their tracker
        time.sleep(0.1)
    time.sleep(5)  # until they work
    process.kill()
    process.wait()
    assert len(started) == 3 and all_gone(started)
