"""A search: what it varies, on which images it judges, that it goes on exactly, that it never sees the test part."""

import csv
import json
import os
from dataclasses import replace

import pytest

import resnetkit as rk
from resnetkit.benchmark.subject import write_photos
from resnetkit.cli.tune import _describe
from resnetkit.data.parts import Part
from resnetkit.errors import Diverged, Interrupted, ResnetkitError, ResourceExhausted, TooManyBadImages
from resnetkit.training import trial as trials
from resnetkit.training import tune as tuning
from resnetkit.training.recipe import load_recipe, make_recipe
from resnetkit.training.search import Search
from resnetkit.training.search_space import Choice, Span, rounded, search_space
from resnetkit.training.trial import Trial, score

TINY = {"model": "resnet8_cifar", "epochs": 2, "batch_size": 128}
COUNT = 4


def tune(out, **settings):
    return rk.tune("digits", out=out, **{"trials": COUNT} | TINY | settings)


def test_batches_of_one_image_are_refused(tmp_path):
    """Of 1,438 training images 1,151 are left to train on: 575 batches of two and one image."""
    with pytest.raises(ResnetkitError, match="1151 training images in batches of up to 2 leave batch norm one"):
        tune(tmp_path / "tune", batch_size=2)


def without_times(found):
    return [{k: v for k, v in trial.to_dict().items() if k != "seconds"} for trial in found.trials]


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    return tune(tmp_path_factory.mktemp("runs") / "tune")


def test_the_folder(tuned):
    folder = tuned.folder
    assert (folder / "plots/trials.png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader((folder / "trials.csv").open()))
    assert [row["trial"] for row in rows] == [str(i) for i in range(COUNT)]
    assert {"outcome", "top1", "loss", "lr", "weight_decay", "label_smoothing", "mixup", "policy"} <= rows[0].keys()
    assert all(json.loads(line) for line in (folder / "study.jsonl").read_text().splitlines())
    assert not list(folder.rglob("*.safetensors")) and not list(folder.rglob("*.partial"))


def test_trial_0_is_the_recipe_and_the_best_is_no_worse(tuned):
    own, first = load_recipe(str(tuned.folder / "recipe.toml")), tuned.trials[0]
    assert first.settings == {name: getattr(own, name) for name in first.settings}
    assert tuned.metrics["top1"] == tuned.best.top1 >= first.top1
    assert tuned.metrics["n"] == 287 and tuned.metrics["split"] == "holdout"
    low, high = tuned.metrics["top1_interval"]
    assert low < tuned.best.top1 < high
    best = load_recipe(tuned.recipe)
    assert best == own.model_copy(update=tuned.best.settings) and best.holdout == 0


def test_the_best_recipe_trains_to_the_figures_that_the_search_reports(tuned, tmp_path):
    """Training is the judge of what a trial did: the same split, the same steps, the same figures."""
    run = rk.train("digits", recipe=str(tuned.recipe), holdout=tuning.HOLDOUT, out=tmp_path / "run")
    last = list(csv.DictReader((run.folder / "results.csv").open()))[-1]
    assert float(last["holdout_top1"]) == tuned.best.top1
    assert float(last["holdout_loss"]) == pytest.approx(tuned.best.loss, abs=1e-12)


class Untouchable(Part):
    """A part whose images must not be asked for."""

    @property
    def images(self):
        raise AssertionError("the test part was run")

    @images.setter
    def images(self, value):
        pass


def with_untouchable_test(divide):
    def divided(source):
        prepared = divide(source)
        test = prepared.parts["test"]
        return replace(prepared, parts=prepared.parts | {"test": Untouchable(None, test.labels, test.names)})

    return divided


def test_the_test_part_is_never_run(tmp_path, monkeypatch):
    handed, answered = [], []
    run_trial, answer = tuning.run_trial, trials.answer
    monkeypatch.setattr(tuning, "divide", with_untouchable_test(tuning.divide))
    monkeypatch.setattr(
        tuning, "run_trial", lambda prepared, *a, **k: handed.append({*prepared.parts}) or run_trial(prepared, *a, **k)
    )
    monkeypatch.setattr(trials, "answer", lambda *a: answered.append(answer(*a)) or answered[-1])
    tune(tmp_path / "tune", trials=2)
    assert handed == [{"train", "holdout"}] * 2
    assert [len(found.labels) for found in answered] == [287] * 4  # a fifth of the 1,438 that train


def test_the_guard_above_can_fail(tmp_path, monkeypatch):
    from resnetkit.training import prepare

    monkeypatch.setattr(prepare, "divide", with_untouchable_test(prepare.divide))
    with pytest.raises(AssertionError, match="the test part was run"):
        rk.train("digits", out=tmp_path / "run", **TINY | {"epochs": 1})


def test_the_data_is_read_once(tmp_path, monkeypatch):
    from resnetkit.training import prepare

    read, ingest = [], prepare.ingest
    monkeypatch.setattr(prepare, "ingest", lambda *a, **k: read.append(1) or ingest(*a, **k))
    tune(tmp_path / "tune", trials=2, epochs=1)
    assert read == [1]


@pytest.mark.parametrize("stops", [[0], [3, 2]])
def test_a_search_goes_on_as_if_never_stopped(tuned, tmp_path, monkeypatch, stops):
    """Stopped in the middle of a trial, which is then run again."""
    run_trial, waiting = tuning.run_trial, list(stops)

    def stopped(*arguments, number, after_step, **options):
        def stop_there(state, waited):
            if number in waiting and state.step == 5:
                waiting.remove(number)
                raise Interrupted("stopped; go on with: resnet tune --resume")
            after_step(state, waited)

        return run_trial(*arguments, number=number, after_step=stop_there, **options)

    monkeypatch.setattr(tuning, "run_trial", stopped)
    with pytest.raises(Interrupted):
        tune(tmp_path / "tune")
    while waiting:
        with pytest.raises(Interrupted):
            rk.tune(resume=tmp_path / "tune")
    resumed = rk.tune(resume=tmp_path / "tune")
    assert without_times(resumed) == without_times(tuned)
    assert resumed.best.number == tuned.best.number
    assert resumed.recipe.read_text() == tuned.recipe.read_text()


def test_another_seed_is_another_search(tuned, tmp_path):
    """The guard above can fail."""
    other = tune(tmp_path / "tune", seed=1, trials=2, epochs=1)
    assert other.trials[0].settings == tuned.trials[0].settings
    assert other.trials[1].settings != tuned.trials[1].settings


def test_a_finished_search_resumes_to_its_answer(tuned, monkeypatch):
    monkeypatch.setattr(tuning, "run_trial", None)
    again = rk.tune(resume=tuned.folder)
    assert again.trials == tuned.trials and again.metrics == tuned.metrics


def test_what_the_user_gave_stays(tmp_path):
    found = tune(tmp_path / "tune", trials=2, epochs=1, lr=0.05, policy="none", holdout=0.3)
    assert set(found.trials[1].settings) == {"weight_decay", "label_smoothing", "mixup"}
    best = load_recipe(str(found.recipe))
    assert best.lr == 0.05 and best.holdout == 0.3
    assert found.held_out == pytest.approx(0.3 * 1438, abs=5)


def test_the_space_holds_the_recipe():
    recipe = make_recipe(
        {"model": "resnet18", "epochs": 1, "lr": 0.0123456, "label_smoothing": 0.3, "policy": "augmix"}
    )
    space = search_space(recipe, {"mixup"}, "rgb")
    own = {name: getattr(recipe, name) for name in space}
    assert "mixup" not in space and rounded(own, space, recipe) == own
    for name, values in space.items():
        assert own[name] in values.words if isinstance(values, Choice) else values.low <= own[name] <= values.high
    without = search_space(recipe.model_copy(update={"weight_decay": 0.0}), set(), "grey")
    assert "weight_decay" not in search_space(recipe.model_copy(update={"optimizer": "muon"}), set(), "rgb")
    assert "mixup" not in search_space(recipe.model_copy(update={"prune_easy": 0.2}), set(), "rgb")
    assert "policy" in without and "policy" not in search_space(recipe, set(), "5")  # whose policies are of pictures
    assert "weight_decay" not in without
    assert rounded({"lr": 0.0234567, "mixup": 0.12345}, without, recipe) == {"lr": 0.0235, "mixup": 0.12}


def test_more_right_ranks_higher_and_of_equals_the_lower_loss():
    figures = [{"top1": right / 300, "loss": loss, "n": 300} for right in (0, 298, 299, 300) for loss in (90, 1.1, 0.0)]
    ranks = [score(each) for each in figures]
    assert ranks == sorted(ranks) and len(set(ranks)) == len(ranks)


def search(tmp_path, epochs=9):
    space = {"lr": Span(0.01, 1.0, log=True), "policy": Choice(("none", "rand"))}
    return Search(tmp_path / "study.jsonl", space, start={"lr": 0.1, "policy": "none"}, epochs=epochs, seed=0)


def finish(found, scores, outcome="complete"):
    attempt = found.ask()
    number = len(found.trials)
    for epoch, value in enumerate(scores, 1):
        attempt.go_on(epoch, value)
    top1 = None if outcome == "diverged" else scores[-1]
    found.record(attempt, Trial(number, attempt.settings, outcome, len(scores), 1.0, top1, top1))


def test_poor_trials_are_given_up_after_a_third_of_the_epochs(tmp_path):
    found = search(tmp_path)
    for _ in range(5):
        poor = found.ask()
        assert all(poor.go_on(epoch, 0.1) for epoch in range(1, 10))  # nothing to compare with yet
        finish(found, [0.1 * epoch for epoch in range(1, 10)])
    attempt = found.ask()
    assert [attempt.go_on(epoch, 0.05) for epoch in range(1, 6)] == [True, True, True, False, False]
    good = found.ask()
    assert all(good.go_on(epoch, 0.95) for epoch in range(1, 10))


def test_the_first_of_equals_is_the_best_and_a_pruned_one_never(tmp_path):
    found = search(tmp_path)
    finish(found, [0.5])
    finish(found, [0.5])
    finish(found, [0.9], "pruned")
    finish(found, [], "diverged")
    assert found.best().number == 0 and len(found.trials) == 4
    assert found.importances() is None


def test_a_line_that_was_cut_short_is_a_trial_that_runs_again(tmp_path):
    finish(search(tmp_path), [0.1, 0.2])
    with open(tmp_path / "study.jsonl", "ab") as file:
        file.write(b'{"op_code": 4, "wor')
    finish(search(tmp_path), [0.3, 0.4])
    assert [trial.top1 for trial in search(tmp_path).trials] == [0.2, 0.4]


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    found = search(tmp_path)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResourceExhausted, match=r"study.jsonl: not written: No space left on device; free some space"):
        finish(found, [0.1])


def test_what_mattered_is_what_did(tmp_path):
    """Scores that the rate alone decides."""
    found = search(tmp_path)
    for _ in range(25):
        attempt = found.ask()
        value = 1 - abs(attempt.settings["lr"] - 0.3)
        attempt.go_on(1, value)
        found.record(attempt, Trial(len(found.trials), attempt.settings, "complete", 1, 1.0, value, value))
    shares = found.importances()
    assert next(iter(shares)) == "lr" and shares["lr"] > 0.7
    assert 0.2 < found.best().settings["lr"] < 0.4


def test_one_that_diverges_is_noted_and_all_that_do_is_an_error(tmp_path, monkeypatch):
    train, calls = trials.Epochs.train, []

    def spoiled(self, after_step):
        calls.append(1)
        if len(calls) > 1:
            raise Diverged("the loss is nan")
        train(self, after_step)

    monkeypatch.setattr(trials.Epochs, "train", spoiled)
    found = tune(tmp_path / "tune", trials=2, epochs=1)
    assert [trial.outcome for trial in found.trials] == ["complete", "diverged"] and found.best.number == 0
    with pytest.raises(Diverged, match="every trial diverged; lower lr"):
        tune(tmp_path / "other", trials=2, epochs=1)


def test_without_optuna_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(rk.ResnetkitError, match=r"pip install 'resnetkit\[tune\]'"):
        tune(tmp_path / "tune")
    assert not (tmp_path / "tune").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "nothing to tune on"),
        ({"data": "digits", "trials": 0}, "trials=0 is impossible; it must be a whole number, 1 or more"),
        ({"data": "digits", "trials": "x"}, "trials='x' is impossible"),
        ({"data": "digits", "workers": -1}, "workers=-1 is impossible"),
        ({"resume": "x", "trials": 3}, "give --resume alone"),
        ({"resume": "x", "max_bad": 0.5}, "give --resume alone"),
        ({"resume": "nowhere"}, "not a tune folder; give the folder that `resnet tune` printed"),
        ({"data": "digits", "lr": "auto"}, "lr='auto'"),
        ({"data": "digits", "holdout": 0.1, "patience": 3}, "patience ends a run early"),
        ({"data": "digits", "recipe": "digits", "model": "resnet21_cifar"}, "nearest that do are 20 and 26"),
        (
            {"data": "digits", "lr": 0.1, "weight_decay": 0, "label_smoothing": 0, "mixup": 0, "policy": "none"},
            "leave one of them",
        ),
    ],
)
def test_mistakes_are_named(arguments, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(rk.ResnetkitError, match=says):
        rk.tune(**arguments)
    assert not list(tmp_path.iterdir())


def test_unreadable_images_are_as_many_as_are_allowed(tmp_path, capsys):
    """A resumed search allows as many as it was begun with."""
    write_photos(tmp_path / "photos", count=12, size=(20, 20))
    for path in sorted((tmp_path / "photos/train").rglob("*.jpg"))[:3]:
        path.write_bytes(b"cut")
    small = {"model": "resnet8_cifar", "trials": 1, "epochs": 1, "batch_size": 4, "device": "cpu"}
    with pytest.raises(TooManyBadImages):
        rk.tune(tmp_path / "photos", out=tmp_path / "tune", **small)
    assert not (tmp_path / "tune").exists()
    found = rk.tune(tmp_path / "photos", out=tmp_path / "tune", max_bad=0.5, **small)
    (left_out,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("bad "))
    assert left_out == f"bad    3 files are left out: {tmp_path / 'tune/bad_files.csv'}"
    assert len((tmp_path / "tune/bad_files.csv").read_text().splitlines()) == 4
    assert "--max-bad 0.5" in _describe(found).splitlines()[-1] and found.to_dict()["max_bad"] == 0.5
    again = rk.tune(resume=tmp_path / "tune")
    assert (again.best, again.max_bad) == (found.best, 0.5)


def test_a_tune_folder_is_no_run(tuned):
    with pytest.raises(rk.ResnetkitError, match="not a run folder"):
        rk.train(resume=tuned.folder)
