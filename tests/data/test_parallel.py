"""Work shared among processes is the work of one."""

import multiprocessing
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resnetkit.data import parallel
from resnetkit.data.datasets import open_dataset
from resnetkit.data.encoded import BadImage
from resnetkit.data.ingest import Ingested, ingest
from resnetkit.data.parallel import CHUNK, LARGE_FILE, map_images, map_in_processes
from resnetkit.data.survey import portrait
from resnetkit.errors import ResourceExhausted

HERE = os.getpid()


@pytest.fixture
def shared_out(monkeypatch):
    """Among two processes however few the items and the cores."""
    monkeypatch.setattr(parallel, "core_count", lambda: 2)
    monkeypatch.setattr(parallel.multiprocessing, "get_start_method", lambda: "fork")
    monkeypatch.setattr(parallel, "CHUNK", 7)
    monkeypatch.setattr(parallel, "FEWEST", 20)


def with_process(item: int) -> tuple[int, int, torch.Tensor]:
    return item, os.getpid(), torch.full((2,), item)


def test_results_come_in_order_from_other_processes(shared_out):
    """Tensors among them, more than a process may have files open."""
    results = list(map_in_processes(with_process, range(5000)))
    assert [item for item, _, _ in results] == list(range(5000))
    assert HERE not in {process for _, process, _ in results}
    assert all(torch.equal(tensor, torch.full((2,), item)) for item, _, tensor in results)
    assert {process for _, process, _ in map_in_processes(with_process, range(19))} == {HERE}


def test_one_core_and_processes_that_are_not_forked_do_it_here(shared_out, monkeypatch):
    monkeypatch.setattr(parallel.multiprocessing, "get_start_method", lambda: "spawn")
    assert {process for _, process, _ in map_in_processes(with_process, range(50))} == {HERE}
    monkeypatch.undo()
    monkeypatch.setattr(parallel, "core_count", lambda: 1)
    assert {process for _, process, _ in map_in_processes(with_process, range(parallel.FEWEST))} == {HERE}


def test_a_process_that_may_have_none_does_it_itself(shared_out):
    """As in a pool of the user's own."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(_processes_of, (50,)) == 1


def _processes_of(count: int) -> int:
    return len({process for _, process, _ in map_in_processes(with_process, range(count))})


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_processes_end_with_a_parent_that_is_killed():
    code = "import os, time; from resnetkit.data.parallel import map_in_processes\n"
    code += "list(map_in_processes(lambda item: os.write(1, f'{item}\\n'.encode()) and time.sleep(100), range(5000)))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert {process.stdout.readline(), process.stdout.readline()} == {"0\n", "256\n"}
    process.kill()
    process.wait()
    ended, _, _ = select.select([process.stdout], [], [], 30)
    assert ended and process.stdout.read() == "", "nobody is left who could write"


def test_an_error_ends_it_and_a_process_that_is_killed_too(shared_out):
    def refuse_30(item: int) -> int:
        if item == 30:
            raise BadImage("the thirtieth")
        return item

    def kill_30(item: int) -> int:
        return item if item != 30 else os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(BadImage, match="the thirtieth"):
        list(map_in_processes(refuse_30, range(100)))
    with pytest.raises(ResourceExhausted, match="was killed"):
        list(map_in_processes(kill_30, range(100)))


def test_few_images_are_taken_ahead_of_what_is_asked_for():
    images, seen = [bytes(LARGE_FILE + 1)] * (4 * CHUNK), []
    results = map_images(lambda image: seen.append(1), images)
    next(results)
    results.close()
    assert len(seen) <= CHUNK


def write_small(folder: Path) -> Path:
    """60 images of 8 pixels in two classes, two of which do not read."""
    random = np.random.default_rng(0)
    for i in range(60):
        path = folder / "train" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
        if i in (12, 41):
            path.write_bytes(path.read_bytes()[:-20])
    return folder


def test_small_images_are_looked_at_alike_by_processes(tmp_path, shared_out, monkeypatch):
    dataset = open_dataset(write_small(tmp_path / "images"))
    together = ingest(dataset, 1.0, measure=portrait)
    assert HERE not in ingest(dataset, 1.0, measure=lambda pixels: os.getpid()).measured["train"]
    monkeypatch.setattr(parallel, "core_count", lambda: 1)
    alone = ingest(dataset, 1.0, measure=portrait)
    assert told(together) == told(alone) and len(alone.dataset.bad) == 2
    assert torch.equal(together.dataset.parts["train"].images, alone.dataset.parts["train"].images)


def told(read: Ingested) -> list[object]:
    portraits = [(p.side, p.grey, p.mean.tolist(), p.thumbnail.tolist()) for p in read.measured["train"]]
    return [read.hashes, read.side, read.channels, read.dataset.bad, read.dataset.parts["train"].names, portraits]
