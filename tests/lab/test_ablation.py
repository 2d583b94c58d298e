"""Verdicts on made-up answers of a network: what may be said of them, and what may not."""

import pytest

from resnetkit.architecture.variants import spec
from resnetkit.lab.ablation import Trials, cost, read_ablation

N, BLOCKS, SEEDS = 1000, 9, 5
GENTLE, CLIFF = (0.85, 0.7, 0.55, 0.4, 0.25), (0.1, 0.1, 0.1, 0.1, 0.1)
SHORT = [[0.2**k for k in range(BLOCKS + 1)]] * SEEDS  # a third of it would be n/3 long, this is n/6


def row(what, share, whole=0.9, seed=None, **more):
    """Answers of which none is won that was wrong before."""
    right, before = round(N * share), round(N * whole)
    own = {"what": what, "right": right, "n": N, "whole": before, "lost": max(0, before - right)}
    return own | ({} if seed is None else {"seed": seed}) | more


def trials(name="resnet20_cifar", whole=0.9, drop=0.895, some=GENTLE, swap=GENTLE, paths=SHORT, shift=0.0):
    """`shift` is by how much each seed's accuracies differ from those of the seed before."""
    rows = [row("whole", whole, whole), *(row("drop", drop, whole, block=b) for b in range(BLOCKS))]
    for seed in range(SEEDS):
        for what, line in (("some", some), ("swap", swap)):
            rows += [
                row(what, share + seed * shift, whole, seed=seed, count=count, tau=1 - count / 10)
                for count, share in enumerate(line, 1)
            ]
        rows += [{"what": "path", "count": k, "seed": seed, "gradient": g} for k, g in enumerate(paths[seed])]
    return Trials(spec(name), rows)


def verdicts(residual, plain=None):
    reading = read_ablation({"residual": residual} | ({"plain": plain} if plain else {}))
    return {finding.key: finding.holds for finding in reading.findings}


def test_what_veit_found_holds():
    assert verdicts(trials(), trials("plain20_cifar", drop=0.12)) == {
        "residual_survives": True,
        "plain_collapses": True,
        "accuracy_falls_gradually": True,
        "order_matters_gradually": True,
        "paths_are_short": True,
    }


@pytest.mark.parametrize(
    ("key", "changes", "holds"),
    [
        ("residual_survives", {"drop": 0.86}, False),
        ("residual_survives", {"drop": 0.88}, None),  # 2 % of 1000 images, and as much again by chance
        ("accuracy_falls_gradually", {"some": CLIFF}, False),  # whose rank correlation is as good as any
        ("accuracy_falls_gradually", {"some": (0.9, 0.89, 0.88, 0.11, 0.1)}, False),
        ("accuracy_falls_gradually", {"some": (0.9,) * 5}, False),  # nothing is lost
        ("order_matters_gradually", {"swap": CLIFF}, False),
        ("order_matters_gradually", {"some": CLIFF}, True),
        ("paths_are_short", {"paths": [[5.0**k for k in range(BLOCKS + 1)]] * SEEDS}, False),
        ("paths_are_short", {"paths": [SHORT[0], [5.0**k for k in range(BLOCKS + 1)]] * SEEDS}, None),
    ],
)
def test_what_does_not_hold(key, changes, holds):
    assert verdicts(trials(**changes))[key] is holds


def test_a_plain_network_that_bears_the_loss():
    assert verdicts(trials(), trials("plain20_cifar", drop=0.8))["plain_collapses"] is False
    assert verdicts(trials(), trials("plain20_cifar", drop=0.5))["plain_collapses"] is None


def test_a_plain_network_of_which_no_block_can_go():
    """As of plain_fast_resnet8_cifar, whose blocks all stride."""
    whole = trials("plain20_cifar")
    reading = read_ablation({"residual": trials(), "plain": Trials(whole.spec, whole.of("whole"))})
    assert {f.key: f.holds for f in reading.findings}["plain_collapses"] is None
    assert reading.figures["plain"] == {"whole": 0.9, "median_without_one": None}


@pytest.mark.parametrize("whole", [0.1, 0.05, 0.25])
def test_a_network_that_learned_nothing_has_nothing_to_lose(whole):
    """Equal to chance, below it, and above it by less than counts."""
    line = (whole,) * 5
    own = {"whole": whole, "drop": whole, "some": line, "swap": line}
    assert set(verdicts(trials(**own), trials("plain20_cifar", **own)).values()) == {None}


def test_the_commonest_class_is_no_learning():
    own = trials()
    assert verdicts(own)["residual_survives"] is True
    own.rows[0]["commonest"] = round(0.9 * N)
    assert set(verdicts(own).values()) == {None}
    assert own.chance == pytest.approx(0.8798, abs=1e-4)  # the lower end of Wilson's interval
    own.rows[0]["commonest"] = 115  # of ten classes one is commonest by chance
    assert own.chance == 0.1


def test_one_seed_decides_nothing_that_is_drawn():
    one = trials()
    one = Trials(one.spec, [row for row in one.rows if row.get("seed", 0) == 0])
    found = verdicts(one)
    assert found.pop("residual_survives") is True
    assert set(found.values()) == {None}


def test_a_cost_is_that_of_paired_answers():
    """40 lost and 20 won of 1,000, a half more of either and two images more: (61 - 20**2 / 1002) / 1002**2. Of few
    images that all stay as they are the loss may cost some all the same."""
    found = cost({"right": 880, "n": 1000, "whole": 900, "lost": 40})
    assert found.value == pytest.approx(0.02)
    assert found.high - 20 / 1002 == pytest.approx(1.96 * (61 - 20**2 / 1002) ** 0.5 / 1002, rel=1e-3)
    few = cost({"right": 20, "n": 20, "whole": 20, "lost": 0})
    assert few.low < -0.05 and few.value == 0 and few.high > 0.05
