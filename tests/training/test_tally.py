"""An epoch's sums, which a GPU leaves on the device until they are read."""

import pytest
import torch

from resnetkit.errors import Diverged
from resnetkit.training.state import Tally


def test_sums_on_the_device_are_read_as_numbers():
    tally = Tally()
    tally.loss += torch.tensor(2.5, dtype=torch.float64)
    tally.right += torch.tensor(3)
    read = tally.read()
    assert read == Tally(2.5, 3.0, 0) and type(read.loss) is type(read.right) is float


@pytest.mark.parametrize("loss", [torch.tensor(float("nan")), float("inf")])
def test_a_spoilt_sum_is_not_kept(loss):
    with pytest.raises(Diverged, match="lower lr"):
        Tally(loss, 0.0, 1).read()
