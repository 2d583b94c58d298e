"""docs/notebook.ipynb runs from its first cell to its last, as it lies there."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs/notebook.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
CODE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]


def run(cells: list[str], folder: Path) -> subprocess.CompletedProcess:
    script = folder / "notebook.py"
    script.write_text("\n".join(cells), encoding="utf-8")
    root = os.pathsep.join(filter(None, [str(NOTEBOOK.parents[1]), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": root}
    return subprocess.run([sys.executable, script], capture_output=True, text=True, cwd=folder, env=environment)


@pytest.mark.skipif(find_spec("keras") is None, reason="Keras is not here")
def test_it_runs_and_ends_with_equal_outputs(tmp_path):
    done = run(CODE, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "21,315,338 parameters" in done.stdout
    assert float(done.stdout.rsplit(":", 1)[1]) < 1e-5
    assert not [file for file in tmp_path.iterdir() if file.name != "notebook.py"]  # it leaves nothing behind


def test_it_is_kept_without_outputs():
    assert all(cell["outputs"] == [] for cell in CELLS if cell["cell_type"] == "code")
