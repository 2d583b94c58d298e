"""What is said while a run goes on."""

import resnetkit as rk
from resnetkit.training import display
from resnetkit.training.display import Display


class State:
    """A run of which so many steps are done."""

    def __init__(self, step):
        self.step = step


def test_the_time_left_goes_by_pixels(monkeypatch, capsys):
    """Four epochs of two steps, from 1,000 to 4,000 pixels, at 100 pixels a second."""
    clock = [0.0]
    monkeypatch.setattr(display, "perf_counter", lambda: clock[0])
    follower = Display([1000, 2000, 3000, 4000], steps=2, first=1, figure="top1")
    for step, seconds, left in ((2, 5.0, "0:01:30"), (3, 15.0, "0:01:20"), (6, 55.0, "0:00:40"), (8, 95.0, "0:00:00")):
        clock[0] = seconds
        follower.epoch(
            State(step), {"epoch": step // 2, "size": 8, "lr": 4e-5, "images_per_second": 1, "data_share": 0}
        )
        said = capsys.readouterr().err
        assert said.endswith(f"ETA {left}\n") and "lr 4e-05" in said


def test_a_run_that_is_resumed_for_figures_alone_has_no_time_to_tell(capsys):
    follower = Display([1000, 2000], steps=2, first=2, figure="top1")
    follower.epoch(State(2), {"epoch": 1, "size": 8, "lr": 0.1, "images_per_second": 1, "data_share": 0})
    assert capsys.readouterr().err.endswith("ETA -:--:--\n")


def test_the_rate_told_is_the_recipes(tmp_path):
    """With `rate_decay` each part has a share of it, and what Muon leaves to AdamW a rate of its own."""
    run = rk.train(
        "digits", out=tmp_path / "run", model="resnet8_cifar", epochs=2, rate_decay=0.7, schedule="step", lr=0.03,
        optimizer="muon", milestones="0.5", batch_size=512,
    )  # fmt: skip
    lines = (run.folder / "results.csv").read_text().splitlines()
    at = lines[0].split(",").index("lr")
    assert [float(line.split(",")[at]) for line in lines[1:]] == [0.03, 0.003]
