"""The experiments, imported into the process of a test, and a data set of the size of MNIST's images for them."""

import importlib
import sys
from pathlib import Path

from conftest import make_split

import jaxmnist as jm

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
SPLITS = [make_split(count, seed, (28, 28, 1), 10) for seed, count in enumerate((47, 13, 23))]
DATASET = jm.Dataset("tiny", tuple("0123456789"), *SPLITS)


def load(script):
    sys.path.insert(0, str(EXPERIMENTS))
    try:
        return importlib.import_module("common"), importlib.import_module(script)
    finally:
        sys.path.remove(str(EXPERIMENTS))
