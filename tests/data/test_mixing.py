"""Mixed batches: shares of images and of targets are the same shares."""

import pytest
import torch

from resnetkit.data.mixing import Mixing, mix


def batch(n=16, size=(12, 20)):
    """Image i is constant i, so that a pixel says where it came from."""
    images = torch.arange(n, dtype=torch.float32).view(n, 1, 1, 1).expand(n, 3, *size).contiguous()
    return images, torch.arange(n)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def test_cutmix_targets_are_the_shares_of_area():
    images, labels = batch()
    for seed in range(50):
        mixed, targets = mix(images, labels, 16, Mixing(0, 1.0), generator(seed))
        for i in range(16):
            shares = torch.bincount(mixed[i, 0].flatten().long(), minlength=16) / (12 * 20)
            torch.testing.assert_close(targets[i], shares, atol=1e-6, rtol=0)


def test_mixup_targets_are_the_shares_of_light():
    images, labels = batch()
    for seed in range(50):
        mixed, targets = mix(images, labels, 16, Mixing(0.4, 0), generator(seed))
        torch.testing.assert_close(mixed[:, 0, 0, 0], targets @ torch.arange(16.0), atol=1e-4, rtol=0)
        torch.testing.assert_close(targets.sum(1), torch.ones(16))


@pytest.mark.parametrize("parameter", [0.2, 1.0])
def test_shares_follow_the_beta_distribution(parameter):
    from scipy.stats import beta, kstest

    images, labels = batch(2, (1, 1))
    shares = []
    for seed in range(4000):
        mixed, _ = mix(images, labels, 2, Mixing(parameter, 0), generator(seed))
        value = float(mixed[0, 0, 0, 0])  # 0 where its partner is itself
        if value > 0:
            shares.append(value)
    assert kstest(shares, beta(parameter, parameter).cdf).pvalue > 1e-3


def test_both_kinds_take_turns_and_a_seed_repeats():
    images, labels = batch()
    kinds = set()
    for seed in range(40):
        mixed, targets = mix(images, labels, 16, Mixing(0.2, 1.0), generator(seed))
        again, _ = mix(images, labels, 16, Mixing(0.2, 1.0), generator(seed))
        assert torch.equal(mixed, again)
        kinds.add(bool((mixed == mixed.round()).all()))
    assert kinds == {True, False}
