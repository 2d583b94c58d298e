"""The catalogue is what torchvision and timm say, its choices are their networks, its class names theirs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import resnetkit as rk
from resnetkit.weights.catalogue import catalogue
from resnetkit.weights.classes import class_names
from resnetkit.weights.recognise import recognise
from tests.conftest import randomise

pytestmark = pytest.mark.peers

ROOT = Path(__file__).parents[2]
SMALL = {  # of each kind of choice one that fits a small machine; shapes alone do not tell strides, pools and epsilons
    e.hf_hub_id.removeprefix("timm/").partition(".")[0]: e
    for e in catalogue()
    if e.hf_hub_id and e.choices and "101" not in e.id and "152" not in e.id and "269" not in e.id
}


def test_it_is_what_the_packages_say():
    made = subprocess.run(
        [sys.executable, "-m", "benchmarks.peers.catalogue"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert json.loads(made.stdout) == json.loads((ROOT / "resnetkit/weights/catalogue.json").read_text())


@pytest.mark.parametrize("name", SMALL)
def test_choices_are_their_networks(name, timm):
    entry = SMALL[name]
    classes = entry.choices.get("num_classes", 1000)
    theirs = randomise(timm.create_model(name, pretrained=False, num_classes=classes)).eval()
    ours = rk.build(entry.variant, **entry.choices).eval()
    ours.load_state_dict(recognise(theirs.state_dict()).tensors)
    x = torch.randn(2, 3, 96, 64)
    with torch.inference_mode():
        expected, got = theirs(x), ours(x)
    assert (expected - got).abs().max() <= 1e-4 * max(1, expected.abs().max())


def test_class_names_are_torchvisions(torchvision_models):
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    assert class_names(1000, "7x7") == _IMAGENET_CATEGORIES
