"""The benchmark as a program: `python -m experiments.benchmark`, from the folder of the checkout."""

import sys
from pathlib import Path

# As for the other scripts, the folder of the experiments is where modules are looked for.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import common

from benchmark.compare import main

if __name__ == "__main__":
    common.main(main)
