"""Which package may import which, and what none may import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "resnetkit"
BELOW = {
    "architecture": set(),
    "data": set(),
    "tasks": {"architecture", "data"},
    "weights": {"architecture", "data"},
    "evaluation": {"architecture", "data", "tasks", "weights"},
    "reporting": {"architecture", "data", "tasks", "weights", "evaluation"},
    "training": {"architecture", "data", "tasks", "weights", "evaluation", "reporting"},
    "lab": {"architecture", "data", "tasks", "weights", "evaluation", "reporting", "training"},
    "inference": {"architecture", "data", "tasks", "weights"},
    "export": {"architecture", "data", "weights"},
    "benchmark": {"architecture", "data", "tasks", "weights", "evaluation", "reporting", "training", "inference"},
    "cli": {
        *("architecture", "data", "tasks", "weights", "evaluation"),
        *("reporting", "training", "lab", "inference", "export", "benchmark"),
    },
}
OTHERS = {"torchvision", "timm", "transformers", "keras"}
THEIRS = {"export": {"keras"}}  # what a package may import of other libraries that build networks
# Modules below every package.
FOUNDATION = {
    *("errors", "atomic", "cgroups", "cores", "device", "garbage", "parent", "tables", "sizes", "user_cache"),
}


def imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{file}: a relative import hides where it points"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def forbidden(package: str, names: set[str]) -> list[str]:
    allowed = BELOW[package] | FOUNDATION | {package}
    ours = [name for name in names if name.startswith("resnetkit.")]
    return [n for n in ours if n.split(".")[1] not in allowed] + [
        n for n in names if n.split(".")[0] in OTHERS - THEIRS.get(package, set())
    ]


@pytest.mark.parametrize("file", sorted(ROOT.rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(file):
    package = file.relative_to(ROOT).parts[0]
    if package in BELOW:
        assert forbidden(package, imports(file)) == []


def test_the_guard_can_fail():
    assert forbidden("architecture", {"resnetkit.data.preprocess.resize"})
    assert forbidden("cli", {"torchvision.ops"})
    assert forbidden("weights", {"keras"})
    assert forbidden("export", {"timm"})


def test_every_package_is_in_the_table():
    assert {p.parent.name for p in ROOT.glob("*/__init__.py")} == set(BELOW)


def test_training_begins_without_what_only_its_end_needs():
    check = (
        "import sys, resnetkit.training.run; print(*{'matplotlib', 'scipy', 'jinja2', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", check], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []


def test_import_costs_nothing():
    check = (
        "import sys, resnetkit; assert not {'torch', 'numpy'} & set(sys.modules)\n"
        "resnetkit.variants(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", check], check=True)
