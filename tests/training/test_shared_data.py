"""Whole runs on CIFAR-10 and on photos, where they lie beside the project."""

import csv
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

import resnetkit as rk

pytestmark = pytest.mark.slow


def test_one_epoch_of_cifar10_twice_gives_equal_tensors(shared, tmp_path):
    runs = [rk.train(shared / "data/cifar10", out=tmp_path / str(i), model="resnet20_cifar", epochs=1) for i in (0, 1)]
    one, other = (load_file(run.folder / "model.safetensors") for run in runs)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert runs[0].metrics["top1"] > 0.5


def test_photos_interrupted_at_the_terminal_end_the_same(shared, tmp_path):
    """Ctrl-C reaches the decoding workers too; they must let the step in progress end."""
    settings = ["--model", "resnet18", "--img-size", "64", "--epochs", "3", "--workers", "2"]
    command = [sys.executable, "-m", "resnetkit.cli.main", "train"]
    flowers = str(shared / "data/flowers")
    options = {"cwd": tmp_path, "env": os.environ | {"OMP_NUM_THREADS": "1"}}
    subprocess.run([*command, flowers, "--out", "whole", *settings], check=True, capture_output=True, **options)
    process = subprocess.Popen(
        [*command, flowers, "--out", "parts", *settings], start_new_session=True, stderr=subprocess.PIPE, **options
    )
    while not (tmp_path / "parts/results.csv").exists() and process.poll() is None:
        time.sleep(0.05)
    time.sleep(1.0)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 75, errors.decode()
    subprocess.run([*command, "--resume", "parts"], check=True, capture_output=True, **options)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    epochs = list(csv.DictReader((tmp_path / "parts/results.csv").open()))
    assert len(epochs) == 3 and "val_top1" in epochs[0]
