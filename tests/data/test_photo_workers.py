"""Batches that processes read, by way of memory that they share."""

import subprocess
import sys
import time

import pytest
import torch

from resnetkit.data.photo_workers import PhotoWorkers

SHAPE = (4, 3, 2)


def plain(number):
    """The image of a number: of nothing else."""
    return torch.full(SHAPE, number, dtype=torch.uint8)


def numbers(batch):
    assert (batch == batch[:, :1, :1, :1]).all()  # every image whole
    return batch[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_come_whole_and_in_order_and_stay_as_they_are(workers):
    asked = [list(range(first, min(first + 7, 250))) for first in range(0, 250, 7)]
    got = []
    for batch in PhotoWorkers(plain, 7, SHAPE, workers).batches(asked, SHAPE):
        assert batch.shape[1:] == (2, 4, 3) and batch.is_contiguous(memory_format=torch.channels_last)
        time.sleep(0.001)  # those that read are ahead
        got.append(batch)
    assert [numbers(batch) for batch in got] == asked


def test_images_may_be_smaller_than_the_largest():
    workers = PhotoWorkers(lambda number: plain(number)[:2, :2], 7, SHAPE, 1)
    (batch,) = workers.batches([[5, 6]], (2, 2, 2))
    assert batch.shape == (2, 2, 2, 2) and numbers(batch) == [5, 6]


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


SPAWNED = """
import multiprocessing
import torch
from resnetkit.data.photo_workers import PhotoWorkers

def plain(number):
    return torch.full((1, 1, 1), number, dtype=torch.uint8)

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    batches = PhotoWorkers(plain, 2, (1, 1, 1), 2).batches([[1, 2], [3, 4], [5]], (1, 1, 1))
    print([batch.flatten().tolist() for batch in batches])
"""


def test_where_processes_are_not_forked(tmp_path):
    """As on macOS and Windows."""
    program = tmp_path / "spawned.py"
    program.write_text(SPAWNED)
    ran = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=120)
    assert ran.stdout == "[[1, 2], [3, 4], [5]]\n", ran.stderr


FAILED = """
import gc
from resnetkit.data.photo_workers import PhotoWorkers

def unreadable(number):
    raise ValueError(number)

def fail():
    try:
        list(PhotoWorkers(unreadable, 1, (1, 1, 1), 2).batches([[1], [2], [3]], (1, 1, 1)))
    except ValueError as error:
        error.itself = error

fail()
gc.collect()
print("here")
"""


def test_a_process_in_which_reading_failed_ends():
    """Though what failed ends up in a cycle of garbage."""
    ran = subprocess.run([sys.executable, "-c", FAILED], capture_output=True, text=True, timeout=60)
    assert ran.stdout == "here\n" and ran.returncode == 0, ran.stderr
