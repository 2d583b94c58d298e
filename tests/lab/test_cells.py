"""Cells side by side: the same numbers, and an interruption that loses no training."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from resnetkit.cores import core_count
from resnetkit.errors import ResourceExhausted
from resnetkit.lab.cells import MOST, measured
from resnetkit.lab.experiment import conduct
from resnetkit.lab.gradients import Gradients

# Four cells, as many as are ever measured at a time.
LONG = "lab degradation digits --depths 8 --depths 14 --images 1400 --epochs 200 --batch 16 --seeds 1 --out".split()
TOGETHER = min(MOST, core_count())
several_cores = pytest.mark.skipif(core_count() < 2, reason="one core measures one cell at a time")


def test_numbers_are_those_of_cells_one_after_the_other(tmp_path):
    experiment = Gradients(data="digits", depths=(8,), batch=8, steps=2, seeds=1)
    alone, together = (conduct(experiment, tmp_path / str(n), processes=n).record["cells"] for n in (1, 2))
    assert [row.keys() for row in alone] == [row.keys() for row in together]
    for a, b in zip(alone, together):
        assert a["net"] == b["net"] and a["setting"] == b["setting"]
        assert a["gradients"] == pytest.approx(b["gradients"], rel=1e-3, nan_ok=True)


def wait_or_fail(seconds):
    """A cell: so long a sleep, or what is no number."""
    time.sleep(float(seconds))
    return float(seconds)


def test_an_error_of_one_ends_all_and_keeps_what_is_done():
    found = []
    with pytest.raises(ValueError, match="could not convert"):
        for one in measured(wait_or_fail, ["0", "1", "word", *["0"] * 50], 2, lambda: False):
            found.append(one.cell)
    assert "0" in found and len(found) < 50


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own way to end a process")
def test_a_process_that_is_killed_is_told_and_the_others_end():
    began = time.monotonic()
    with pytest.raises(ResourceExhausted, match="was killed"):
        list(measured(kill_or_wait, ["kill", "100"], 2, lambda: False))
    assert time.monotonic() - began < 60


def kill_or_wait(what):
    if what != "kill":
        return time.sleep(float(what))
    time.sleep(2)  # until the other is at work
    os.kill(os.getpid(), signal.SIGKILL)


def children(process):
    return Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()


def lives(process):
    """Not as a zombie, which is what is left where nobody asks for its exit code."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except FileNotFoundError:
        return False


def all_gone(processes):
    deadline = time.monotonic() + 30
    while any(map(lives, processes)) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = [process for process in processes if lives(process)]
    for process in left:
        os.kill(int(process), signal.SIGKILL)
    return not left


@several_cores
def test_an_interruption_saves_the_trainings_and_leaves_no_process(tmp_path):
    command = [sys.executable, "-m", "resnetkit.cli.main", *LONG, str(tmp_path / "a")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    runs, deadline = tmp_path / "a/runs", time.monotonic() + 120
    while len(list(runs.glob("*/log.jsonl"))) < TOGETHER and time.monotonic() < deadline:
        time.sleep(0.1)
    started = children(process)
    try:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
        gone = all_gone(started)
    assert process.returncode == 75 and "to go on" in errors and "Traceback" not in errors, errors
    assert started and gone
    saved = [run / "checkpoints/last.safetensors" for run in runs.iterdir()]
    assert len(saved) == TOGETHER and all(file.exists() for file in saved)


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
