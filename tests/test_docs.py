"""Documents: generated parts are up to date, links lead somewhere, figures come from results."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from resnetkit.cli.main import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def script(folder, name):
    sys.path.insert(0, str(ROOT / folder))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(ROOT / folder))


@pytest.fixture(scope="module")
def verdicts():
    return script("docs", "verdict")


@pytest.fixture(scope="module")
def reread():
    return script("benchmarks", "reread")


def test_generated_parts_are_up_to_date():
    done = subprocess.run([sys.executable, ROOT / "docs/generate.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", page.read_text())
    for link in (a or b for a, b in links):
        assert (page.parent / link).exists(), link


def commands_shown(text):
    """The `resnet ...` in backticks, over lines too, and on lines of their own."""
    fenced = "\n".join(re.findall(r"^```[^\n]*\n(.*?)^```", text, re.M | re.S))
    spans = re.findall(r"`(resnet [^`]+)`", re.sub(r"^```[^\n]*\n.*?^```", "", text, flags=re.M | re.S))
    lines = re.findall(r"^[ $]*(resnet [^#\n]+(?:\n +[\[-][^#\n]+)*)", fenced, re.M)
    return [" ".join(shown.split()) for found in spans + lines for shown in found.split(";") if "resnet" in shown]


def misspelt(shown):
    """What of a command there is not: a verb, or flags."""
    command, words = get_command(app), shown.split()[1:]
    while isinstance(command, TyperGroup) and words and not words[0].startswith("-"):
        verbs = words.pop(0).split("|")
        if unknown := [verb for verb in verbs if verb not in command.commands]:
            return unknown
        command = command.commands[verbs[0]]
    known = {flag for option in command.params for flag in option.opts}
    return sorted(set(re.findall(r"--[a-z][a-z-]*", shown)) - known)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_that_are_shown_are_taken(page):
    assert {shown: wrong for shown in commands_shown(page.read_text()) if (wrong := misspelt(shown))} == {}


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("see `resnet data chekc photos`", ["chekc"]),
        ("```\nresnet lab degradatoin\n```", ["degradatoin"]),
        ("`resnet data check|splt x`", ["splt"]),
        ("`resnet train x\n--nope`", ["--nope"]),
        ("```\n  $ resnet train x\n             [--nope N]  # so\n```", ["--nope"]),
        ("`resnet train x; resnet evaluate RUN --tta`", []),
    ],
)
def test_a_misspelt_command_is_seen(text, wrong):
    assert [word for shown in commands_shown(text) for word in misspelt(shown)] == wrong


def test_results_name_their_origin():
    files = list((ROOT / "results").glob("*.json"))
    assert {file.stem for file in files} >= {"digits"}
    for file in files:
        result = json.loads(file.read_text())
        parts = [value["origin"] for value in result.values() if isinstance(value, dict) and "origin" in value]
        for origin in parts or [result]:
            assert origin["environment"]["commit"] not in ("", "unknown")
            assert "dirty" not in origin["environment"]["commit"]
            assert origin["environment"]["processor"] and origin["date"]
        assert [run["seed"] for run in result.get("runs", [])] in ([], result.get("seeds"))


def finding(key, holds):
    return {"key": key, "claim": key, "holds": holds, "verdict": "told", "says": "so"}


@pytest.mark.parametrize(
    ("holds", "keys", "verdict"),
    [
        ((True, True), "ab", "true"),
        ((False, False), "ab", "false"),
        ((None, None), "ab", "does not show"),
        ((True, False), "ab", "depends"),
        ((True, None), "ab", "depends"),
        ((False, None), "ab", "depends"),
        ((True, False), ("a", "!b"), "true"),
        ((False, True), ("a", "!b"), "false"),
        ((None,), ("!a",), "does not show"),
        ((True, True), "abc", "not measured yet"),  # c is not among what was found
    ],
)
def test_a_verdict_is_counted(verdicts, holds, keys, verdict):
    result = {"findings": [finding(*pair) for pair in zip("abc", holds)], "command": "resnet lab x"}
    assert verdicts.counted(result, "lab-x", tuple(keys))[1] == verdict


@pytest.mark.parametrize(("depths", "verdict"), [([20, 110], "not measured yet"), ([20, 1202], "true")])
def test_hundreds_of_layers_are_not_thousands(verdicts, tmp_path, monkeypatch, depths, verdict):
    result = {"findings": [finding("residual_trains", True)], "settings": {"depths": depths}, "command": "resnet lab"}
    (tmp_path / "results").mkdir()
    (tmp_path / "results/lab-depth.json").write_text(json.dumps(result))
    monkeypatch.setattr(verdicts, "ROOT", tmp_path)
    assert verdicts._judged(verdicts.THOUSANDS, "lab-depth", ("residual_trains",))[1] == verdict


def test_every_finding_that_a_row_names_is_one(verdicts):
    known = "".join(file.read_text() for file in (ROOT / "resnetkit/lab").glob("*.py"))
    for _, _, keys in verdicts.PROMISES:
        for key in keys:
            assert re.search(rf'"{key.lstrip("!")}"', known) or re.fullmatch(r"steeper_\d+", key), key


def test_findings_are_those_of_their_cells(reread):
    """No results file keeps a verdict of a rule that has changed since."""
    files = list((ROOT / "results").glob("lab-*.json"))
    assert files
    for file in files:
        record = json.loads(file.read_text())
        assert reread.reread(record)["findings"] == record["findings"], file.name


def test_package_lists_no_torchvision():
    assert "torchvision" not in (ROOT / "pyproject.toml").read_text().split("[tool.", 1)[0]


def test_licences_of_what_we_depend_on_are_permissive():
    """Every distribution that the package pulls in says a permissive licence in its own metadata; but for those that
    torch's CUDA build alone requires, which are NVIDIA's: the README says so."""
    from importlib.metadata import distribution, requires

    from packaging.requirements import Requirement

    permissive = re.compile(r"\b(MIT|BSD|0BSD|Apache|PSF|HPND|ISC|Zlib|CC0|CMU|Python Software Foundation)\b")
    copyleft = re.compile(r"\b[AL]?GPL")
    seen, waiting = set(), [r for r in requires("resnetkit") or []]
    while waiting:
        requirement = Requirement(waiting.pop())
        if requirement.name in seen or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        seen.add(requirement.name)
        if re.match(r"(nvidia|cuda)-", requirement.name):
            continue
        found = distribution(requirement.name)
        metadata = found.metadata
        licences = [c for c in metadata.get_all("Classifier") or [] if c.startswith("License")]
        stated = " ".join([metadata.get("License-Expression") or "", *licences, metadata.get("License") or ""])
        stated = stated[:300]  # a whole licence text may mention others; its first words say what it is
        assert permissive.search(stated) and not copyleft.search(stated), f"{requirement.name}: {stated}"
        waiting += found.requires or []
    assert {"torch", "numpy", "pillow"} <= seen
    assert "NVIDIA's own licence" in (ROOT / "README.md").read_text()
