"""What the network of a run answers to the part of its own data that its figures are of."""

from pathlib import Path

import torch

from resnetkit.evaluation.answers import Answers
from resnetkit.evaluation.evaluate import Computing, choose_images
from resnetkit.weights.files import Model


def own_answers(run: Path, model: Model) -> Answers:
    """`model`, the run's, in float32 on the CPU."""
    computing = Computing(torch.device("cpu"), torch.float32, batch_size=256, workers=0)
    return computing.answers(model, choose_images(run, model, None, None, 0.0))
