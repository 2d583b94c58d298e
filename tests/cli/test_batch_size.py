"""`--batch-size auto` as a user types it."""

import json
import os
import subprocess
import sys
import tomllib


def test_it_is_found_written_and_remembered(tmp_path):
    command = [sys.executable, "-m", "resnetkit.cli.main", "train", "digits", "--model", "resnet8_cifar"]
    command += ["--epochs", "1", "--batch-size", "auto", "--json"]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    said = []
    for name in ("one", "two"):
        done = subprocess.run([*command, "--out", name], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["run"] == name
        assert tomllib.loads((tmp_path / name / "recipe.toml").read_text())["batch_size"] == 64
        said.append(next(line for line in done.stderr.splitlines() if line.startswith("batch")))
    assert "remembered" not in said[0] and "remembered" in said[1]
