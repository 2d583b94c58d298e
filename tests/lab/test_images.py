"""The few images that experiments look at."""

import pytest

from resnetkit.lab.images import few_images


def test_no_class_is_missing_among_few():
    few = few_images("digits", train=12, test=10)
    assert {name: len(part) for name, part in few.parts.items()} == {"train": 12, "test": 10}
    assert all(set(part.labels.tolist()) == set(range(10)) for part in few.parts.values())


def test_more_than_there_are_is_all():
    few = few_images("digits", train=10_000, test=10_000)
    assert len(few.parts["train"]) + len(few.parts["test"]) == 1797
    assert not set(few.parts["train"].names) & set(few.parts["test"].names)


def test_noise_is_normal():
    images = few_images("noise", train=64, test=1).parts["train"].images.float() / 255
    assert images.shape == (64, 3, 32, 32)
    assert float(images.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(images.std()) == pytest.approx(1 / 6, abs=0.01)


def test_no_class_is_missing_to_train_on():
    assert len(few_images("digits", train=3, test=3).parts["train"].labels.unique()) == 10
