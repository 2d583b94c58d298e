"""Two small runs on the digits."""

import pytest

import resnetkit as rk


@pytest.fixture(scope="session")
def digits_runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return [
        rk.train("digits", out=folder / str(seed), model="resnet8_cifar", epochs=1, seed=seed).folder for seed in (0, 1)
    ]
