"""Batches that processes read, by way of memory that they share."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from resnetkit.data import photo_workers
from resnetkit.data.encoded import BadImage
from resnetkit.data.photo_workers import PhotoWorkers
from resnetkit.device import within_memory
from resnetkit.errors import ResourceExhausted

SHAPE = (4, 3, 2)
CPU = torch.device("cpu")


def plain(number):
    """The image of a number: of nothing else."""
    return torch.full(SHAPE, number, dtype=torch.uint8)


def numbers(batch):
    assert (batch == batch[:, :1, :1, :1]).all()  # every image whole
    return batch[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_come_whole_and_in_order_and_stay_as_they_are(workers, monkeypatch):
    asked = [list(range(first, min(first + 7, 250))) for first in range(0, 250, 7)]
    batches = PhotoWorkers(plain, 7, SHAPE, workers).batches(asked, SHAPE)
    got = [next(batches)]
    images = photo_workers._images
    monkeypatch.setattr(photo_workers, "_images", lambda *place: time.sleep(0.02) or images(*place))
    got += batches  # copied so late that those that read are as far ahead as they may be
    assert [numbers(batch) for batch in got] == asked
    assert got[0].shape[1:] == (2, 4, 3) and got[0].is_contiguous(memory_format=torch.channels_last)


def small(number):
    return plain(number)[:2, :2]


@pytest.mark.parametrize("workers", [0, 1])
def test_images_have_the_shape_that_is_asked_for(workers):
    read = PhotoWorkers(small, 7, SHAPE, workers)
    (batch,) = read.batches([[5, 6]], (2, 2, 2))
    assert batch.shape == (2, 2, 2, 2) and numbers(batch) == [5, 6]
    with pytest.raises(ValueError, match="where .4, 3, 2. was asked for"):
        next(read.batches([[5, 6]], SHAPE))
    with pytest.raises(ValueError, match="larger than .4, 3, 2."):
        next(read.batches([[5, 6]], (4, 4, 2)))


def test_what_was_asked_for_before_is_given_up():
    read = PhotoWorkers(plain, 1, SHAPE, 2)
    before = read.batches([[1], [2], [3]], SHAPE)
    next(before)
    after = read.batches([[4], [5], [6]], SHAPE)
    assert numbers(next(after)) == [4]
    with pytest.raises(RuntimeError, match="since"):
        next(before)


def unreadable(number):
    if number == 9:
        raise ValueError("nine is damaged")
    return plain(number)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_comes_where_its_batch_would(workers):
    batches = PhotoWorkers(unreadable, 2, SHAPE, workers).batches([[1, 2], [3, 9], [5, 6]], SHAPE)
    assert numbers(next(batches)) == [1, 2]
    with pytest.raises(ValueError, match="nine is damaged"):
        next(batches)


def damaged(number):
    if number == 8:
        raise BadImage("b.jpg can no longer be read: no such file")
    if number == 9:
        raise RuntimeError("of torch's")
    return plain(number)


@pytest.mark.parametrize("workers", [0, 1])
def test_what_no_longer_reads_is_told_in_one_line(workers):
    batches = PhotoWorkers(damaged, 2, SHAPE, workers).batches([[1, 8]], SHAPE)
    with pytest.raises(BadImage) as error:
        next(batches)
    assert str(error.value) == "b.jpg can no longer be read: no such file"


def test_an_error_of_torchs_in_a_process_is_no_kill():
    batches = PhotoWorkers(damaged, 2, SHAPE, 1).batches([[1, 9]], SHAPE)
    with pytest.raises(RuntimeError, match="of torch's"):
        next(batches)


def test_a_process_that_is_killed_is_told_as_what_it_is():
    def kill_9(number):
        return plain(number) if number != 9 else os.kill(os.getpid(), signal.SIGKILL)

    batches = PhotoWorkers(kill_9, 2, SHAPE, 1).batches([[1, 2], [3, 9], [5, 6]], SHAPE)
    with pytest.raises(ResourceExhausted, match="a process that reads photos was killed"), within_memory(CPU, "cure"):
        list(batches)


def test_a_process_that_is_killed_while_this_one_computes_is_told_so():
    pid = torch.tensor(0).share_memory_()

    def with_pid(number):
        pid.fill_(os.getpid())
        return plain(number)

    batches = PhotoWorkers(with_pid, 2, SHAPE, 1).batches([[1, 2], [3, 4]], SHAPE)
    next(batches)
    with pytest.raises(ResourceExhausted, match="a process that reads photos was killed"), within_memory(CPU, "cure"):
        os.kill(int(pid), signal.SIGKILL)
        time.sleep(10)


PROGRAM = """
import gc
import multiprocessing
import sys
import torch
from resnetkit.data.photo_workers import PhotoWorkers

def plain(number):
    if number == 9:
        raise ValueError("nine is damaged")
    return torch.full((1, 1, 1), number, dtype=torch.uint8)

def read(asked):
    try:
        print([batch.flatten().tolist() for batch in PhotoWorkers(plain, 2, (1, 1, 1), 2).batches(asked, (1, 1, 1))])
    except ValueError as error:
        print("damaged")
        error.itself = error

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    read([[1, 2], [3, 4], [5]])
    read([[1, 2], [3, 9]])
    gc.collect()
"""


@pytest.mark.parametrize("start", ["fork", "spawn", "forkserver"])
def test_a_process_ends_however_it_starts_others_and_though_what_failed_is_in_a_cycle(start, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    ran = subprocess.run([sys.executable, program, start], capture_output=True, text=True, timeout=120)
    assert ran.stdout == "[[1, 2], [3, 4], [5]]\ndamaged\n" and ran.returncode == 0, ran.stderr
