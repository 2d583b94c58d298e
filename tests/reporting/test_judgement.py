"""What the page says of a run: each rule fires where it should and nowhere else."""

import shlex
from dataclasses import replace
from itertools import combinations

import pytest
import torch

import resnetkit as rk
from resnetkit.evaluation.ranking import Ranking
from resnetkit.reporting import judgement
from resnetkit.reporting.charts import LEFT, RIGHT, decades, epoch_ticks, line_chart, ticks
from resnetkit.reporting.graphs import graph
from resnetkit.reporting.judgement import CURES, findings
from resnetkit.reporting.record import read_record
from resnetkit.reporting.wording import count, short
from resnetkit.training.recipe import make_recipe, parse_settings
from resnetkit.weights.calibration import Calibration
from resnetkit.weights.files import Model
from tests.reporting.conftest import write_run

OVERFIT = [(1.0, 0.5, 1.1, 0.5), (0.6, 0.8, 0.9, 0.6), (0.2, 0.95, 1.0, 0.61), (0.05, 1.0, 1.4, 0.6)]
GOOD = [(1.0, 0.5, 1.1, 0.5), (0.6, 0.8, 0.7, 0.8), (0.5, 0.9, 0.5, 0.9), (0.4, 0.92, 0.45, 0.9)]
GAP = [(1.0, 0.5, 1.1, 0.5), (0.6, 0.8, 0.9, 0.6), (0.2, 0.95, 0.8, 0.65), (0.1, 1.0, 0.8, 0.7)]


@pytest.fixture
def record(tmp_path):
    """1,000 answers, nine of ten right, as sure as they are right."""
    answers = [(str(i), label := "xy"[i % 2], label if i % 10 else "xy"[1 - i % 2], 0.9) for i in range(1000)]
    made = read_record(write_run(tmp_path / "run", ["x", "y"], answers))
    made.metrics.update(top1_interval=[0.88, 0.92], top1=0.9)
    return made


def epochs(figures):
    names = ("train_loss", "train_top1", "val_loss", "val_top1")
    return [{"epoch": i, "lr": 0.1} | dict(zip(names, row)) for i, row in enumerate(figures, 1)]


def with_val(record, figures, images=1000):
    part = [replace(record.images[i % 1000], part="val", hash=f"v{i}") for i in range(images)]
    return replace(record, epochs=epochs(figures), images=[*record.images, *part])


def titles(record):
    return [finding.title for finding in findings(record)]


def test_a_good_run_is_left_alone(record):
    assert titles(record) == [] and titles(with_val(record, GOOD)) == []


def test_overfitting_is_named_with_the_epoch(record):
    (finding,) = findings(with_val(record, OVERFIT))
    assert finding.title == "It overfits."
    assert (
        "From epoch 3 on" not in finding.text
        and "From epoch 2 on the held-out loss rose from 0.9 to 1.4" in finding.text
    )
    assert "100.0\u00a0% of the training images were right and 60.0\u00a0%" in finding.text
    typed = [typed for typed, _ in finding.cures]
    assert "--epochs 2" in typed and "--weights MODEL" in typed and "--set policy=trivial" in typed


def test_a_gap_without_a_rising_loss_is_less(record):
    (finding,) = findings(with_val(record, GAP))
    assert finding.title == "It does better on its training images."
    assert not any(typed.startswith("--epochs") for typed, _ in finding.cures)


def test_a_gap_that_chance_makes_is_none(record):
    assert titles(with_val(record, [(0.5, 0.72, 0.6, 0.6)] * 4, images=20)) == []
    assert titles(with_val(record, [(0.5, 0.72, 0.6, 0.6)] * 4, images=1000)) != []


SHORT = [(1.6, 0.55, 2.2, 0.5), (1.5, 0.6, 1.7, 0.6), (1.45, 0.7, 1.5, 0.65), (1.4, 0.725, 1.4, 0.7)]


def after(record, figures, steps=39, **recipe):
    """A run of so many steps, of which 70 % to 73 % of the tested images are right."""
    record.metrics.update(top1_interval=[0.67, 0.73], top1=0.7)
    model = Model(rk.build("resnet8_cifar", 2), ["x", "y"], record.preprocessing, provenance={"steps": steps})
    return replace(with_val(record, figures), model=model, recipe=record.recipe | recipe)


def test_a_short_training(record):
    (finding,) = (one for one in findings(after(record, SHORT)) if one.title == "It was trained for a short time.")
    assert "In 39 steps" in finding.text and "72.5\u00a0% of the training images" in finding.text
    assert [typed for typed, _ in finding.cures] == ["--epochs 12", "--weights MODEL"]


@pytest.mark.parametrize(
    ("figures", "more"),
    [
        (SHORT, {"steps": 64_000}),
        (SHORT, {"mixup": 0.2}),
        (SHORT, {"cutmix": 1.0}),
        (SHORT, {"prune_easy": 0.2}),
        (SHORT, {"holdout": 0.1}),
        (SHORT, {"epochs": 100}),  # it gave up by itself
        ([*SHORT[:3], (1.4, 0.725, 1.4, 0.6)], {}),  # overfits
        ([*SHORT[:3], (1.4, 0.725, 1.7, 0.7)], {}),  # the loss rose
        ([*SHORT[:3], (0.3, 0.92, 0.4, 0.85)], {}),
        ([*SHORT[:3], (0.5, 0.85, 0.3, 0.89)], {}),  # training shows them harder than they are
    ],
)
def test_what_is_no_short_training(record, figures, more):
    assert "It was trained for a short time." not in titles(after(record, figures, **more))


def test_what_the_run_did_already_is_not_advised(record):
    overfit = with_val(record, OVERFIT)
    used = {"policy": "trivial", "min_scale": 0.35, "weights": "x", "holdout": 0.1}
    (finding,) = findings(replace(overfit, recipe=overfit.recipe | used))
    typed = [typed for typed, _ in finding.cures]
    assert typed == ["--set erasing=0.25", "--set mixup=0.2", "--set label_smoothing=0.1"]


def test_what_the_run_cannot_do_is_not_advised(record):
    overfit = with_val(record, OVERFIT)
    bands = replace(overfit.preprocessing, channels="5", mean=(0.5,) * 5, std=(0.2,) * 5)
    (finding,) = findings(replace(overfit, preprocessing=bands))
    assert not any("policy" in typed for typed, _ in finding.cures)
    used = {name: value for name, _, value, _ in CURES if name != "drop_path_rate"}
    for name, how, advised in (
        ("resnet8_cifar", "off", True),
        ("resnet8_cifar", "on", False),
        ("plain8_cifar", "off", False),
    ):
        model, command = Model(rk.build(name, 2), ["x", "y"], record.preprocessing), record.command | {"compile": how}
        (finding,) = findings(replace(overfit, recipe=overfit.recipe | used, model=model, command=command))
        assert any("drop_path_rate" in typed for typed, _ in finding.cures) == advised


def test_every_cure_is_a_setting():
    for name, off, value, _ in CURES:
        recipe = make_recipe({"model": "resnet18", "epochs": 1, "lr": 0.1} | parse_settings({}, [f"{name}={value}"]))
        assert getattr(recipe, name) != off
        assert make_recipe({"model": "resnet18", "epochs": 1, "lr": 0.1, name: off})


def test_a_constant_answer(record):
    same = [replace(answer, predicted="x") for answer in record.answers]
    constant = replace(record, answers=same, metrics=record.metrics | {"top1": 0.5, "top1_interval": [0.47, 0.53]})
    assert "It has not learnt." in titles(constant)
    alike = [replace(answer, label="x") for answer in same]
    one_class = replace(record, answers=alike, metrics=record.metrics | {"top1": 1.0, "top1_interval": [0.996, 1.0]})
    assert "It has not learnt." not in titles(one_class)
    no_better = replace(record, metrics=record.metrics | {"top1": 0.52, "top1_interval": [0.49, 0.55]})
    assert "It is not shown to be better than a constant answer." in titles(no_better)


def test_probabilities_are_judged_beyond_chance(record):
    surer = replace(record, answers=[replace(answer, probability=0.99) for answer in record.answers])
    assert titles(surer) == ["It is too sure."]
    warm = Calibration(temperature=3)
    model = Model(rk.build("resnet8_cifar", 2), ["x", "y"], record.preprocessing, calibration=warm)
    assert titles(replace(surer, model=model)) == ["It was calibrated anew after its test."]
    shyer = replace(record, answers=[replace(answer, probability=0.6) for answer in record.answers])
    assert titles(shyer) == ["It is too doubtful."]


def test_commands_can_be_copied_wherever_the_run_lies(record, tmp_path):
    shy = [replace(answer, probability=0.6) for answer in record.answers]
    for run in (replace(record, answers=shy), replace(record, metrics={})):
        (finding,) = findings(replace(run, folder=tmp_path / "my 'best' run"))
        ((typed, _),) = finding.cures
        assert str(tmp_path / "my 'best' run") in shlex.split(typed)


def test_what_diverged_is_not_sent_round_the_same_way(record):
    events = [{"event": "started"}, {"event": "diverged", "step": 9}]
    (finding,) = findings(replace(record, metrics=None, events=events))
    assert finding.title == "It diverged." and "--lr" in finding.cures[0][0]
    assert not any("--resume" in typed for typed, _ in finding.cures) and "warmup_epochs=2" in finding.cures[1][0]
    cycle = replace(record, metrics=None, events=events, recipe=record.recipe | {"schedule": "one_cycle"})
    assert len(findings(cycle)[0].cures) == 1  # given, a warm-up would be shorter than its own
    resumed = replace(record, metrics=None, events=[*events, {"event": "resumed"}, {"event": "interrupted"}])
    assert titles(resumed) == ["It is not finished."]


@pytest.mark.parametrize(("positives", "n"), [(1, 1), (1, 5), (2, 6), (3, 5), (4, 4)])
def test_chance_is_the_mean_over_all_orders(positives, n):
    places = list(combinations(range(n), positives))
    scores = torch.arange(n, 0, -1).float()
    found = [Ranking.of(scores, torch.tensor([i in own for i in range(n)])).average_precision for own in places]
    harmonic = sum(1 / rank for rank in range(1, n + 1))
    assert judgement._random_precision(positives, n, harmonic) == pytest.approx(sum(found) / len(found))


def test_a_wide_interval(record):
    assert titles(replace(record, metrics=record.metrics | {"top1_interval": [0.84, 0.96]})) == ["The figure is rough."]


def test_copies_in_the_test(record):
    copy = replace(record.images[0], part="train")
    (finding,) = findings(replace(record, images=[*record.images, copy]))
    assert finding.title == "The test is not clean."
    assert finding.text.startswith("1 tested image lies among those it was trained or chosen on too, byte for byte")
    chosen_on = replace(record, images=[*record.images, replace(copy, part="holdout")])
    assert titles(chosen_on) == ["The test is not clean."]
    watched = replace(record.images[0], part="val")  # which nothing is learnt from
    assert titles(replace(record, images=[*record.images, watched])) == []
    apart = [replace(copy, hash="a"), replace(copy, part="val", hash="a")]
    assert titles(replace(record, images=[*record.images, *apart])) == []


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 3.01), (0.2, 0.21), (-3, 7), (0, 12345), (0.5, 0.5), (0, 0)])
def test_ticks_are_round_and_around_the_values(low, high):
    marks = ticks(low, high)
    assert marks[0] <= low and marks[-1] >= high - 1e-12 and 2 <= len(marks) <= 12
    step = marks[1] - marks[0]
    assert f"{step:.0e}"[0] in "125" and step == pytest.approx(float(f"{step:.0e}"))


def test_axes():
    assert decades(0.3, 40) == [0.1, 1, 10, 100]
    assert epoch_ticks(1) == [1] and epoch_ticks(2) == [1, 2]
    assert epoch_ticks(100) == [1, 20, 40, 60, 80, 100]
    chart = line_chart("Loss", {"train": [1000, 10, 1]}, may_leap=True)
    heights = [y for _, y in chart.lines["train"]]
    assert heights[1] - heights[0] == pytest.approx(2 * (heights[2] - heights[1]), abs=0.2)  # two decades, then one
    assert (
        line_chart("Loss", {"train": [0.0, 0.0]}).lines["train"][0][1]
        == line_chart("Loss", {"a": [0.0]}).lines["a"][0][1]
    )


@pytest.mark.parametrize("log_x", [False, True])
@pytest.mark.parametrize("places", [(18,), (18, 19)])
def test_an_axis_without_round_values_names_its_ends(places, log_x):
    drawn = graph("loss", {"net": [(place, 1.0) for place in places]}, x_label="layers", log_x=log_x)
    assert drawn.x_ticks and all(LEFT <= x <= RIGHT for x, _ in drawn.x_ticks)


@pytest.mark.parametrize(
    ("low", "high", "log", "says"),
    [
        (2e-4, 9e-4, True, ["1e-4", "2e-4", "5e-4", "0.001", "0.002"]),
        (1, 9e5, False, ["0", "2e5", "4e5", "6e5", "8e5", "1e6"]),
    ],
)
def test_marks_say_what_they_are(low, high, log, says):
    made = graph("t", {"a": [(1, low), (2, high)]}, x_label="x", log_y=log)
    assert [text for _, text in made.y_ticks] == says


def test_numbers_in_words():
    assert count(1.2, "second") == "1 second" and count(0.4, "second") == "0 seconds"
    assert short(999_700_000) == "1\u00a0G" and short(999_400) == "999\u00a0k" and short(12) == "12"


def test_an_axis_names_an_end_below_zero():
    drawn = graph("loss", {"net": [(-1.0, 1.0), (0.0, 2.0), (1.0, 1.0)]}, x_label="share of the direction")
    assert [text for _, text in drawn.x_ticks] == ["-1", "0", "1"]
