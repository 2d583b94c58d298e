"""`--batch-size auto` as a user types it."""

import json
import os
import subprocess
import sys
import tomllib


def test_it_is_found_and_written(tmp_path):
    command = [sys.executable, "-m", "resnetkit.cli.main", "train", "digits", "--model", "resnet8_cifar"]
    command += ["--epochs", "1", "--batch-size", "auto", "--json"]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run([*command, "--out", "one"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run"] == "one"
    assert tomllib.loads((tmp_path / "one" / "recipe.toml").read_text())["batch_size"] == 64
    assert "batch  64 images a step, the most that leaves an epoch 23 steps" in done.stderr
