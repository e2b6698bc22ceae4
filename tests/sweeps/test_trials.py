"""What a newcomer gives by mistake is told what to do instead, before anything is trained."""

import flax.linen as nn
import haiku as hk
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmnist as jm

TOKENS = np.random.default_rng(0).integers(0, 20, (60, 7)).astype(np.int32)
LABELS = TOKENS.sum(axis=1) % 2
RUNS = jm.grid(learning_rate=0.1, batch_size=8, seed=0)


class OfTokens(nn.Module):
    """A classifier of tokens below 20."""

    @nn.compact
    def __call__(self, tokens):
        return nn.Dense(2)(nn.Embed(20, 3)(tokens).mean(axis=1))


@pytest.mark.parametrize(
    ("model", "inputs", "labels", "words"),
    [
        (nn.Dense(2), TOKENS / 20, LABELS + 1, r"labels from 1 to 2 belong to 3 classes: subtract 1 from them, or set"),
        (nn.Dense(3), TOKENS / 20, LABELS, r"labels from 0 to 1 belong to 2 classes: set num_classes=2"),
        (OfTokens(), TOKENS.astype(np.uint8), LABELS, r"inputs uint8\[7\]: .*; give whole numbers as int32\)"),
        (OfTokens(), TOKENS + 1, LABELS, r"infinity for inputs that are .*numbers from 1 to 20: an embedding"),
        (nn.Dense(2), TOKENS.astype(np.float32)[..., None], LABELS, r"returns a .* \(2, 7, 2\); logits \[B, K\]"),
        (
            hk.transform(lambda inputs: hk.Linear(2)(inputs) + jnp.ones((1, 5))), TOKENS / 20, LABELS,
            r"inputs float64\[7\]: add got incompatible shapes",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_told_what_is_right(model, inputs, labels, words):
    with pytest.raises(ValueError, match=words):
        jm.check(model, optax.sgd, RUNS, jm.from_arrays(inputs, labels), 3)


def test_tokens_of_every_row_of_an_embedding_are_taken():
    jm.check(OfTokens(), optax.sgd, RUNS, jm.from_arrays(TOKENS, LABELS), 3)
