"""This package beside its peers: `python -m experiments.benchmark`, from the folder of the checkout."""
