"""The largest batch that fits, against what PyTorch's own allocator records; and that it is remembered."""

import json
import tomllib

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import resnetkit as rk
from resnetkit.errors import Interrupted, ResourceExhausted
from resnetkit.sizes import written_bytes
from resnetkit.training import batch_size, memory, remembered, run, trainer
from resnetkit.training.batch_size import CPU_SHARE, find_batch_size, largest, scaled_rate
from resnetkit.training.prepare import prepare
from resnetkit.training.recipe import make_recipe

CPU = torch.device("cpu")
SMALL = {"model": "resnet20_cifar", "img_size": 16, "precision": "float32"}
NETWORKS = [
    SMALL,
    SMALL | {"precision": "bfloat16", "mixup": 0.2, "ema_decay": 0.9},
    SMALL | {"optimizer": "adamw", "lr": 0.001, "drop_path_rate": 0.2},
    # At 64 pixels the last maps are so small that some processors' kernels take four times their weights.
    {"model": "resnet18", "img_size": 96, "precision": "float32"},
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def prepared_and_state(**settings):
    prepared = prepare("digits", None, SMALL | settings, 0.1)
    return prepared, run.new_state(prepared, CPU)[0]


def standing(state):
    """Bytes that a run holds between two steps: weights, the optimizer's memory, the average."""
    tensors = [*state.net.state_dict().values(), *state.average.values.values()]
    tensors += [v for values in state.optimizer.state.values() for v in values.values()]
    return sum(t.nbytes for t in tensors)


def recorded_peak(state, prepared, images):
    """The most that was live in a step, from the allocator's record of every block."""
    memory.trial_step(state, prepared, images)
    state.optimizer.zero_grad(set_to_none=True)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        memory.trial_step(state, prepared, images)
    blocks = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = peak = 0
    for block in sorted(blocks, key=lambda e: e.start_ns()):
        live += block.nbytes()
        peak = max(peak, live)
    return standing(state) + peak


@pytest.mark.parametrize("settings", NETWORKS)
@pytest.mark.parametrize("wanted", [16, 32])
def test_what_is_chosen_fits_and_twice_it_does_not(monkeypatch, settings, wanted):
    prepared, state = prepared_and_state(**settings)
    fits, too_much = (recorded_peak(state, prepared, images) for images in (wanted, 2 * wanted))
    budget = (fits + too_much) / 2
    monkeypatch.setattr(batch_size, "free_memory", lambda: int(budget / CPU_SHARE))
    found = find_batch_size(prepared, state)
    assert found.images == wanted
    assert fits < budget < too_much
    assert "the most in 50% of the" in found.why
    monkeypatch.setattr(batch_size, "free_memory", None)
    found = find_batch_size(prepared, state, int(budget))
    assert found.images == wanted and found.why == f"the most in {written_bytes(int(budget))}"


def test_a_run_keeps_to_its_budget(tmp_path, capsys):
    prepared, state = prepared_and_state(model="resnet8_cifar", img_size=32)
    budget = (planned(state, prepared, 16) + planned(state, prepared, 32)) // 2000
    settings = {"model": "resnet8_cifar", "epochs": 1, "batch_size": "auto", "img_size": 32}
    settings |= {"precision": "float32", "device": "cpu"}
    run = rk.train("digits", out=tmp_path / "run", memory_budget=f"{budget}KB", **settings)
    told = capsys.readouterr().err
    assert f"batch  16 images a step, the most in {written_bytes(1000 * budget)}" in told
    assert "memory plain" in told and "over it" not in told
    assert tomllib.loads((run.folder / "recipe.toml").read_text())["batch_size"] == 16


def test_a_budget_that_is_too_small_is_named():
    with pytest.raises(ResourceExhausted, match="1.0 MiB are too few for 2 images a step; raise memory_budget, or"):
        find_batch_size(*prepared_and_state(model="resnet18"), 2**20)


def test_what_is_tried_is_as_large_as_what_is_trained_on():
    """Evaluation sees more pixels, and needs no gradients."""
    (larger, one), (smaller, other) = (prepared_and_state(img_size=side, train_size=16) for side in (32, 16))
    assert larger.preprocessing.size == (32, 32) and larger.training_size == smaller.training_size == (16, 16)
    assert memory.step_bytes(one, larger, 8) == memory.step_bytes(other, smaller, 8)
    assert planned(one, larger, 8) == planned(other, smaller, 8)


@pytest.mark.parametrize("settings", NETWORKS)
def test_the_measure_is_near_the_allocators_record(settings):
    prepared, state = prepared_and_state(**settings)
    _, another = prepared_and_state(**settings)  # whose step leaves out the same branches
    assert memory.step_bytes(state, prepared, 64) == pytest.approx(recorded_peak(another, prepared, 64), rel=0.1)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
def test_an_optimizers_first_step_counts_as_its_later_ones(optimizer):
    """The moments of ResNet-18, made in the first, weigh more than anything that images of 8 pixels add."""
    prepared, state = prepared_and_state(model="resnet18", img_size=8, optimizer=optimizer)
    first, second = (memory.step_bytes(state, prepared, 8) for _ in range(2))
    assert first == pytest.approx(second, rel=0.01)


@pytest.mark.parametrize("settings", NETWORKS)
@pytest.mark.parametrize("images", [2, 64])
def test_the_plan_is_near_the_allocators_record(settings, images):
    prepared, state = prepared_and_state(**settings)
    assert planned(state, prepared, images) == pytest.approx(recorded_peak(state, prepared, images), rel=0.25)


def planned(state, prepared, images):
    return memory.planned_bytes(prepared, state.net, images)


def test_what_an_optimizer_makes_counts(monkeypatch):
    """Muon's directions take more than two images do, of which the plan knows nothing."""
    prepared, state = prepared_and_state(model="resnet18", optimizer="muon")
    fits = recorded_peak(state, prepared, 2)
    assert planned(state, prepared, 2) < 0.7 * fits
    for share, found in ((1.1, True), (0.8, False)):
        monkeypatch.setattr(batch_size, "free_memory", lambda free=share * fits / CPU_SHARE: free)
        assert (batch_size._on_cpu(prepared, state, 2)[0] == 2) is found


def test_weights_that_outweigh_the_images_are_no_reason_for_few(monkeypatch):
    """Of 8 and 16 images of digits as large as they come ResNet-18's moments, made in the first step, weigh more than
    anything that an image adds."""
    prepared, state = prepared_and_state(model="resnet18", img_size=8)
    monkeypatch.setattr(batch_size, "free_memory", lambda: 2**30)
    assert find_batch_size(prepared, state).images == 64
    assert recorded_peak(state, prepared, 64) < 2**30 * CPU_SHARE


def test_frozen_parts_take_less(tmp_path):
    source = rk.train("digits", out=tmp_path / "run", epochs=1, model="resnet8_cifar").folder
    settings = {"model": "resnet8_cifar", "weights": str(source)}
    whole = prepared_and_state(**settings)
    frozen = prepared_and_state(**settings, freeze="backbone", epochs=3)
    thawed = prepared_and_state(**settings, freeze="backbone", epochs=9, thaw_epochs=1)
    for found in (memory.step_bytes, planned):
        full, little, late = (found(state, prepared, 64) for prepared, state in (whole, frozen, thawed))
        assert little < 0.5 * full
        assert late == pytest.approx(full, rel=0.01)  # the last epochs of the last learn everywhere


def test_an_epoch_keeps_twenty_steps(monkeypatch):
    prepared, state = prepared_and_state()
    found = find_batch_size(prepared, state)
    assert found.images == 64 and -(-1438 // 64) == 23
    assert found.why == "the most that leaves an epoch 23 steps"
    few = prepared.parts["train"].take(torch.arange(100))
    prepared.parts["train"] = few
    assert find_batch_size(prepared, state).images == batch_size.WORTHWHILE


def test_it_stays_near_the_recipes():
    prepared, state = prepared_and_state(batch_size=4, lr=0.01)
    found = find_batch_size(prepared, state)
    assert (found.images, found.why) == (32, "no more than 8 times the recipe's 4")


def test_another_image_size_is_tried_anew_on_a_gpu(monkeypatch):
    gpu = FakeGpu(monkeypatch, 40)
    for img_size, known in ((16, False), (16, True), (32, False)):
        found = batch_size._on_gpu(*prepared_and_state(img_size=img_size), CPU, 64)
        assert found[::2] == (32, known)
    assert len(gpu.tried) == 2 * len(set(gpu.tried))


def test_a_spoiled_or_missing_cache_is_done_without(tmp_path, monkeypatch):
    remembered.cache_file().parent.mkdir(parents=True)
    remembered.cache_file().write_text("{")
    assert remembered.recall({"a": 1}) is None
    remembered.remember({"a": 1}, {"fits": 2})
    assert remembered.recall({"a": 1})["fits"] == 2 and remembered.recall({"a": 2}) is None
    assert json.loads(remembered.cache_file().read_text())
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    remembered.remember({"a": 1}, {"fits": 2})
    assert remembered.recall({"a": 1}) is None
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert remembered.cache_file().is_absolute()


def test_the_rate_follows_unless_it_was_given(tmp_path, capsys):
    settings = {"model": "resnet8_cifar", "epochs": 1, "batch_size": "auto"}
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('model = "resnet8_cifar"\nepochs = 1\nlr = 0.02\nbatch_size = 16\n')
    followed = rk.train("digits", recipe=str(recipe), out=tmp_path / "followed", **settings)
    assert "lr 0.02 for 16 images becomes 0.08 (linear scaling)" in capsys.readouterr().err
    assert stored(followed)["batch_size"] == 64 and stored(followed)["lr"] == 0.08
    given = rk.train("digits", recipe=str(recipe), out=tmp_path / "given", lr=0.03, **settings)
    assert "linear scaling" not in capsys.readouterr().err
    assert stored(given)["lr"] == 0.03


def stored(finished):
    return tomllib.loads((finished.folder / "recipe.toml").read_text())


def test_the_papers_rates():
    """Goyal et al. 2017: 0.1 for 256 images, 3.2 for 8,192."""
    recipe = make_recipe({"model": "resnet50", "epochs": 90, "lr": 0.1, "batch_size": 256})
    assert scaled_rate(recipe, 8192) == 3.2 and scaled_rate(recipe, 128) == 0.05


def test_a_resume_measures_nothing(tmp_path, monkeypatch):
    after_step = trainer.Trainer._after_step

    def stop(self, state, waited):
        self.stop.requested = state.step == 3
        after_step(self, state, waited)

    monkeypatch.setattr(trainer.Trainer, "_after_step", stop)
    with pytest.raises(Interrupted):
        rk.train("digits", out=tmp_path / "run", model="resnet8_cifar", epochs=1, batch_size="auto")
    monkeypatch.setattr(run, "find_batch_size", None)
    assert rk.train(resume=tmp_path / "run").metrics["n"] == 359


@pytest.mark.parametrize("limit, found", [(1, 0), (2, 2), (100, 64), (10_000, 256)])
def test_doubling_stops_where_memory_does(limit, found):
    tried = []
    assert largest(lambda images: tried.append(images) or images <= limit, 256) == found
    assert max(tried) <= max(2, 2 * found) and max(tried) <= 256


class FakeGpu:
    """A GPU with room for so many images a step, which throws where it is full."""

    def __init__(self, monkeypatch, images):
        self.images, self.tried, self.peak = images, [], 0
        monkeypatch.setattr(memory, "trial_step", self.step)
        for name, value in {
            "empty_cache": None,
            "reset_peak_memory_stats": None,
            "mem_get_info": (1000, 1000),
            "memory_reserved": 0,
            "get_device_properties": type("Properties", (), {"name": "fake", "total_memory": 1000}),
        }.items():
            monkeypatch.setattr(torch.cuda, name, lambda *a, value=value: value)
        monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda *a: self.peak)

    def step(self, state, prepared, images):
        self.tried.append(images)
        self.peak = 1000 * images / self.images
        if self.peak > 1000:
            raise torch.OutOfMemoryError("full")


@pytest.mark.parametrize("room, found", [(40, 32), (33, 16), (1.5, 0)])
def test_a_gpu_is_filled_until_it_throws_with_a_margin(monkeypatch, room, found):
    prepared, state = prepared_and_state()
    gpu = FakeGpu(monkeypatch, room)
    assert batch_size._on_gpu(prepared, state, CPU, 64)[0] == found
    assert all(p.grad is None for p in state.net.parameters())
    tried = len(gpu.tried)
    assert batch_size._on_gpu(prepared, state, CPU, 128)[::2] == (found, found > 0)  # memory was the limit
    assert (len(gpu.tried) == tried) == (found > 0)


def test_a_gpu_is_filled_up_to_a_budget(monkeypatch):
    prepared, state = prepared_and_state()
    FakeGpu(monkeypatch, 40)
    assert batch_size._on_gpu(prepared, state, CPU, 64, 500) == (16, "the most in 500 B", False)
    assert batch_size._on_gpu(prepared, state, CPU, 64, 200) == (8, "the most in 200 B", False)  # remembered apart
    assert batch_size._on_gpu(prepared, state, CPU, 64, 500)[::2] == (16, True)


def test_a_gpu_is_tried_again_where_others_take_more_or_less_of_it(monkeypatch):
    prepared, state = prepared_and_state()
    FakeGpu(monkeypatch, 20)
    assert batch_size._on_gpu(prepared, state, CPU, 64)[::2] == (16, False)
    FakeGpu(monkeypatch, 40)
    assert batch_size._on_gpu(prepared, state, CPU, 64)[::2] == (16, True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *a: (2000, 4000))
    assert batch_size._on_gpu(prepared, state, CPU, 64)[::2] == (32, False)


def test_a_gpu_is_tried_again_where_the_data_was_the_limit(monkeypatch):
    prepared, state = prepared_and_state()
    FakeGpu(monkeypatch, 1000)
    assert batch_size._on_gpu(prepared, state, CPU, 64)[::2] == (64, False)
    assert batch_size._on_gpu(prepared, state, CPU, 32)[::2] == (32, True)
    assert batch_size._on_gpu(prepared, state, CPU, 128)[::2] == (128, False)


def test_a_system_that_does_not_say_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    with pytest.raises(rk.ResnetkitError, match="does not say how much memory is free; give batch_size a number"):
        memory.free_memory()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"accumulate": 4}, "accumulate=4 is for one that does not; leave one of them out"),
        ({"batch_size": "largest"}, "batch_size='largest'"),
    ],
)
def test_mistakes_are_named(tmp_path, settings, says):
    with pytest.raises(rk.ResnetkitError, match=says):
        rk.train("digits", out=tmp_path / "run", **{"batch_size": "auto"} | settings)
    assert not (tmp_path / "run").exists()


def test_no_memory_for_two_images(monkeypatch):
    monkeypatch.setattr(batch_size, "free_memory", lambda: 1000)
    prepared, state = prepared_and_state()
    with pytest.raises(ResourceExhausted, match="too little memory for 2 images"):
        find_batch_size(prepared, state)
