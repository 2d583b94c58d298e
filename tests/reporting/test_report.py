"""The page of a run, read as a browser would and checked against other people's counting."""

import json
import re
import shlex
import shutil
from types import SimpleNamespace

import pytest
import torch
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from typer.testing import CliRunner

import resnetkit as rk
from resnetkit.cli.main import app
from resnetkit.errors import ModelFileRefused
from resnetkit.reporting.report import write_report
from resnetkit.reporting.sections import _times
from resnetkit.tables import csv_text, read_csv
from tests.reporting.conftest import HOSTILE, QUOTED, write_run
from tests.reporting.page import Page

LANDMARKS = ("header", "nav", "main", "footer")


@pytest.fixture(scope="module")
def page(run):
    return Page(write_report(run))


def numbers(row, columns):
    return [float(row[i].removesuffix("\u00a0%")) / 100 for i in columns]


def test_nothing_is_fetched_and_nothing_runs(page):
    assert not page.all("script") and not page.all("iframe")
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    sources = [a["src"] for a in page.all("img")]
    assert sources and all(source.startswith("data:image/") for source in sources)
    links = [a["href"] for a in page.all("a")] + [a["href"] for a in page.all("link")]
    assert all(link.startswith(("#", "data:")) for link in links)
    assert "url(" not in page.source and "@import" not in page.source
    assert "default-src 'none'" in page.source


def test_links_and_ids(page):
    assert len(page.ids) == len(set(page.ids))
    targets = {a["href"][1:] for a in page.all("a")}
    assert targets <= set(page.ids) and {f"pair-{i}-{i}" for i in range(2)} <= targets


def test_structure(page):
    assert all(len(page.all(tag)) == 1 for tag in (*LANDMARKS, "h1"))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in zip([0, *levels], levels))
    assert all(image["alt"] for image in page.all("img"))
    assert all(image.get("aria-label") or image.get("aria-hidden") for image in page.all("svg") if "role" in image)
    assert all(header["scope"] in ("row", "col") for header in page.all("th"))
    assert all(page.tables) and len(page.tables) == len(page.all("table"))  # each has a caption of its own


def test_names_are_text(page):
    assert HOSTILE in page.text and QUOTED in page.text
    assert not page.all("b") or all(a.get("class") == "name" for a in page.all("b"))
    assert "<script" not in page.source and "<img src=x" not in page.source


def test_the_verdict_is_the_run_s(page, run):
    metrics = json.loads((run / "evaluation/metrics.json").read_text())
    right = round(metrics["top1"] * metrics["n"])
    assert f"{right} of {metrics['n']} validation images right: {metrics['top1']:.1%}"[:-1] in page.text
    low, high = (f"{100 * end:.1f}" for end in metrics["top1_interval"])
    assert f"(95 % interval {low} to {high} %)" in page.text
    assert {metrics[name] for name in ("top1", "loss", "ece", "n")} <= set(page.figures)


def test_matrix_and_classes_are_scikit_learn_s(page, run):
    rows = read_csv(run / "evaluation/predictions.csv")
    true, predicted = [row["class"] for row in rows], [row["predicted"] for row in rows]
    classes = json.loads((run / "classes.json").read_text())
    matrix = page.tables["Images by class and answer"]
    shown = [[int(cell or 0) for cell in row[1:]] for row in matrix[1:]]
    assert shown == confusion_matrix(true, predicted, labels=classes).tolist()
    expected = precision_recall_fscore_support(true, predicted, labels=classes, zero_division=0)
    for i, row in enumerate(page.tables["Figures of each class"][1:]):
        assert row[0] == classes[i] and int(row[1]) == expected[3][i]
        if row[2] != "none":
            assert numbers(row, (2, 4, 6)) == pytest.approx([expected[k][i] for k in range(3)], abs=5.01e-4)


def test_every_answer_is_in_a_bin(page, run):
    bins = page.tables["Answers by probability"][1:]
    metrics = json.loads((run / "evaluation/metrics.json").read_text())
    counts = [int(row[1]) for row in bins]
    assert sum(counts) == metrics["n"]
    gaps = [abs(sure - right) for sure, right in (numbers(row, (2, 3)) for row in bins)]
    assert sum(n * gap for n, gap in zip(counts, gaps)) / metrics["n"] == pytest.approx(metrics["ece"], abs=1e-3)


def test_curves_are_the_epochs(page, run):
    """Points read back from the drawing through its own ticks."""
    epochs = read_csv(run / "results.csv")
    top1 = page.source[page.source.index("<figcaption>Top-1") :].partition("</figure>")[0]
    ticks = {float(text): float(y) for y, text in re.findall(r'y="([\d.]+)" text-anchor="end">(\d+)%', top1)}
    grid = [float(y) for y in re.findall(r'class="grid" x1="\d+" y1="([\d.]+)"', top1)]
    bottom, top = max(grid), min(grid)
    assert sorted(ticks) == [0, 25, 50, 75, 100]
    lines = re.findall(r'<polyline[^>]*points="([^"]+)"', top1)
    for line, part in zip(lines, ("train", "val"), strict=True):
        heights = [float(point.partition(",")[2]) for point in line.split()]
        shares = [(bottom - y) / (bottom - top) for y in heights]
        assert shares == pytest.approx([float(epoch[f"{part}_top1"]) for epoch in epochs], abs=1e-3)
    assert len(page.tables["Loss and top-1 by epoch"]) == len(epochs) + 1


def test_data_health(page):
    counts = {row[0]: row[1:] for row in page.tables["Images of each class and part"]}
    assert counts["All"] == ["25", "13"]
    assert counts[HOSTILE] == ["12", "7"] and counts[QUOTED] == ["13", "6"]
    (bad,) = page.tables["Images left out, and why"][1:]
    assert "broken <i>.jpg" in bad[0] and bad[1]
    assert "2 images are copies of others" in page.text
    assert "The same image in several parts" in page.text and "leak.png (validation" in page.text
    assert "The same image in several classes" in page.text and "both.png (training" in page.text
    assert "1 tested image lies among those" in page.text


def test_pictures_are_those_of_the_run(page, run):
    wrong = read_csv(run / "evaluation/mistakes.csv")
    alts = [a["alt"] for a in page.all("img")]
    for row in wrong[:24]:
        assert f"{row['class']} taken for {row['predicted']}: {row['path']}" in alts
    assert sum(alt.startswith("what the network sees") for alt in alts) == 6


def test_without_the_images_the_page_is_made(run, photos, tmp_path):
    moved = shutil.copytree(run, tmp_path / "run")
    command = json.loads((moved / "command.json").read_text())
    (moved / "command.json").write_text(json.dumps(command | {"data": str(tmp_path / "gone")}))
    without = Page(write_report(moved))
    assert "Without pictures." in without.text and "no such path" in without.text
    assert not without.all("img")
    assert {a["href"][1:] for a in without.all("a")} <= set(without.ids)
    half = shutil.copytree(photos, tmp_path / "gone")
    for file in (half / "val").rglob("*.png"):
        file.write_bytes(b"")
    without = Page(write_report(moved))
    told = re.search(r"Some pictures are missing\. (\d+) images could not be read again", without.text)
    assert told and 0 < int(told[1]) <= sum(1 for file in (half / "val").rglob("*.png")) and without.all("img")


def test_a_large_group_of_copies_is_cut(tmp_path):
    answers = [(f"{i}.png", "x", "x", 0.9) for i in range(300)]
    run = write_run(tmp_path / "run", ["x", "y"], answers)
    rows = [(f"{i}.png", "x", "test" if i else "train", "same") for i in range(300)]
    (run / "split.csv").write_text(csv_text(("path", "class", "split", "hash"), rows))
    page = Page(write_report(run))
    assert "0.png (training" in page.text and "and 280 more" in page.text and "250.png" not in page.text


def test_a_name_with_the_end_of_a_line_in_it(tmp_path):
    names = ["a\rb.png", "c\r\nd.png", "e\nf.png"]
    run = write_run(tmp_path / "run", ["x", "y"], [(name, "x", "y", 0.9) for name in names])
    assert [row["path"] for row in read_csv(run / "split.csv")] == names
    assert "0 of 3 test images right" in Page(write_report(run)).text


def test_the_command_that_repeats_it_has_its_memory_mode(tmp_path):
    run = write_run(tmp_path / "run", ["x", "y"], [("1", "x", "x", 0.9), ("2", "y", "x", 0.6)])
    command = json.loads((run / "command.json").read_text()) | {"memory": "checkpoint"}
    (run / "command.json").write_text(json.dumps(command))
    assert "--memory checkpoint" in Page(write_report(run)).text


def test_sections_without_data_are_absent(tmp_path):
    titles = re.compile(r'<h2 id="(\w+)-title">')
    bare = titles.findall(write_report(write_run(tmp_path / "a", ["x", "y"], None)).read_text())
    assert bare == ["advice", "data", "framing", "provenance", "reproduce"]
    unfinished = Page(tmp_path / "a" / "report.html")
    assert "This run is not finished: 0 of 4 epochs done" in unfinished.text
    assert f"resnet train --resume {tmp_path / 'a'}" in unfinished.text
    tested = write_run(tmp_path / "b", ["x", "y"], [("1", "x", "x", 0.9), ("2", "y", "x", 0.6)])
    assert titles.findall(write_report(tested).read_text()) == [
        *("advice", "data", "framing", "mistakes", "confusion", "classes", "calibration", "provenance", "reproduce")
    ]


def test_many_classes_list_their_commonest_mistakes(tmp_path):
    classes = [f"class {i}" for i in range(1000)]
    answers = [(f"{i}", classes[i % 1000], classes[i % 1000 if i % 7 else (i * i) % 1000], 0.5) for i in range(20_000)]
    path = write_report(write_run(tmp_path / "run", classes, answers))
    page = Page(path)
    assert len(page.tables["Commonest mistakes"]) == 41 and len(page.tables["Figures of each class"]) == 1001
    assert {a["href"][1:] for a in page.all("a")} <= set(page.ids)
    assert path.stat().st_size < 5_000_000


def test_many_classes_without_a_mistake(tmp_path):
    classes = [f"class {i}" for i in range(40)]
    answers = [(f"{i}", classes[i % 40], classes[i % 40], 0.9) for i in range(400)]
    page = Page(write_report(write_run(tmp_path / "run", classes, answers)))
    assert "no image was taken for another class" in page.text and "The photos behind it" not in page.text


def test_pictures_stay_within_the_budget(run, tmp_path, monkeypatch):
    monkeypatch.setattr("resnetkit.reporting.album.BUDGET", 60_000)
    page = Page(write_report(shutil.copytree(run, tmp_path / "run")))
    assert 0 < sum(len(a["src"]) for a in page.all("img")) <= 60_000


def test_figures_of_kinds_of_image(run, tmp_path):
    """What an evaluation adds to the metrics is shown too."""
    folder = shutil.copytree(run, tmp_path / "run")
    figures = rk.evaluate(folder)
    (folder / "evaluation/metrics.json").write_text(json.dumps(figures))
    page = Page(write_report(folder))
    assert figures["balanced_accuracy"] in page.figures
    for kind, rows in figures["slices"].items():
        assert [row[0] for row in page.tables[f"Figures by {kind}"][1:]] == [row["slice"] for row in rows]


def test_the_command_repeats_the_run(run, tmp_path, monkeypatch):
    page = Page(write_report(run))
    command = next(line for line in page.words if line.startswith("resnet train "))
    arguments = shlex.split(command)[1:]
    arguments[arguments.index("--out") + 1] = str(tmp_path / "again")
    threads = torch.get_num_threads()
    done = CliRunner().invoke(app, [*arguments, "--workers", "0", "--json"])
    assert threads == torch.get_num_threads() and done.exit_code == 0, done.output
    metrics = (tmp_path / "again/evaluation/metrics.json").read_text()
    assert metrics == (run / "evaluation/metrics.json").read_text()


def test_a_compiled_run_is_repeated_compiled(run, tmp_path):
    compiled = shutil.copytree(run, tmp_path / "run")
    command = json.loads((compiled / "command.json").read_text())
    (compiled / "command.json").write_text(json.dumps(command | {"compile": "on"}))
    assert "--compile on" in Page(write_report(compiled)).text


def test_the_verb(run, tmp_path):
    done = CliRunner().invoke(app, ["report", str(run), "--json"])
    assert json.loads(done.stdout) == {
        "report": str(run / "report.html"),
        "bytes": (run / "report.html").stat().st_size,
    }
    with pytest.raises(rk.ResnetkitError, match="is not a run folder"):
        write_report(tmp_path)
    damaged = write_run(tmp_path / "damaged", ["x"], None)
    (damaged / "classes.json").unlink()
    with pytest.raises(rk.ResnetkitError, match="missing or damaged: .*classes.json"):
        write_report(damaged)
    spoilt = shutil.copytree(run, tmp_path / "spoilt")
    (spoilt / "model.safetensors").write_bytes(b"no model")
    with pytest.raises(ModelFileRefused):
        write_report(spoilt)


def test_a_name_that_is_not_utf8(tmp_path):
    folder = write_run(tmp_path / "run", ["x", "y"], [("1", "x", "x", 0.9), ("2", "y", "x", 0.6)])
    table = (folder / "evaluation/predictions.csv").read_bytes()
    (folder / "evaluation/predictions.csv").write_bytes(table.replace(b"\n2,", b"\n\xff2,"))
    assert "\ufffd2" in Page(write_report(folder)).text


def test_pauses_are_not_counted():
    """Begun on Friday, interrupted after an hour, resumed on Monday, killed within minutes and resumed again; and once
    more for a page that could not be written."""
    log = {
        "started": "2026-11-27T10:00:00",
        "interrupted": "2026-11-27T11:00:00",
        "resumed": "2026-11-30T09:00:00",
        "epoch": "2026-11-30T09:20:00",
        "resumed again": "2026-11-30T12:00:00",
        "finished": "2026-11-30T12:30:00",
        "resumed for the page": "2026-11-30T15:30:00",
        "finished for the page": "2026-11-30T15:31:00",
    }
    events = [{"event": name.split()[0], "time": f"{time}+00:00"} for name, time in log.items()]
    assert _times(SimpleNamespace(events=events)) == {
        "Begun": "2026-11-27 10:00 UTC",
        "Took": "1:50:00 (hours, minutes, seconds)",
    }
