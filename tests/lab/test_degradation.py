"""Verdicts on made-up training errors."""

import pytest

from resnetkit.lab.degradation import Degradation


def verdicts(plain, residual, seeds=3, spread=0.002):
    """Of what depth costs each network, which differs by `spread` from seed to seed."""
    experiment, rows = Degradation(depths=(20, 56), seeds=seeds), []
    for cell in experiment.cells():
        cost = {"plain": plain, "residual": residual}[cell["net"]] * (cell["depth"] == 56)
        error = 0.2 + cost * (1 + 0.01 * cell["seed"]) + spread * cell["seed"] * (cell["depth"] == 56)
        rows.append(cell | {"train_error": error, "test_error": error, "curve": [], "diverged": False})
    return [finding.holds for finding in experiment.read(rows).findings]


@pytest.mark.parametrize(
    ("plain", "residual", "found"),
    [
        (0.10, -0.02, [True, True, True]),
        (0.10, 0.0, [True, None, True]),
        (0.10, 0.05, [True, False, True]),  # less of it
        (0.10, 0.10, [True, False, False]),
        (0.05, 0.10, [True, False, False]),
        (-0.10, 0.05, [False, False, False]),
        (0.0, -0.05, [None, True, True]),
    ],
)
def test_what_depth_costs(plain, residual, found):
    assert verdicts(plain, residual) == found


def test_one_seed_says_nothing():
    assert verdicts(0.1, 0.0, seeds=1) == [None, None, None]


def test_where_the_papers_numbers_are_of_the_same_budget():
    assert Degradation(data="x/cifar10/")._as_the_paper()
    for other in ({"data": "digits"}, {"epochs": 10}, {"batch": 32}, {"images": 5000}, {"size": 16}):
        assert not Degradation(**{"data": "cifar10"} | other)._as_the_paper()


def test_the_papers_numbers_stand_beside_its_data_alone():
    headers = []
    for data in ("cifar10", "digits"):
        experiment = Degradation(data=data, depths=(20, 56), seeds=1)
        figures = {"train_error": 0.1, "test_error": 0.2, "curve": [], "diverged": False}
        (table,) = experiment.read([cell | figures for cell in experiment.cells()]).tables
        assert {len(row) for row in table.rows} == {len(table.header)}
        headers.append("the paper's test" in table.header)
    assert headers == [True, False]


def test_two_that_learn_every_image_differ_in_nothing():
    assert verdicts(0.0, 0.0, spread=0.0) == [False, True, False]


@pytest.mark.parametrize(("batch", "rate"), [(128, 0.1), (32, 0.025)])
def test_the_rate_is_the_papers_in_proportion_to_the_batch(batch, rate):
    recipe = Degradation(images=64, batch=batch)._prepared({"net": "plain", "depth": 8, "seed": 0}).recipe
    assert recipe.lr == pytest.approx(rate)
