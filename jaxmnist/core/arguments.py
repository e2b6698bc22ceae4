"""What the functions of one run may be given, as data; of traced arrays, shapes and dtypes alone."""

from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxmnist import checks
from jaxmnist.checks import FUNCTION, MAX_STEPS, Array, Number, Optional, Where, Whole
from jaxmnist.core.model import apply, check_flags, init_params
from jaxmnist.data.dataset import MAX_EXAMPLES, Batch, check_labels

MODULE = Where("a flax linen module", lambda value: isinstance(value, nn.Module))
TRANSFORMATION = Where(
    "a gradient transformation, such as optax.sgd(0.1),",
    lambda value: hasattr(value, "init") and hasattr(value, "update"),
)
PARAMS = Where(
    "a tree of float arrays",
    lambda value: (
        bool(jax.tree.leaves(value))
        and all(getattr(getattr(leaf, "dtype", None), "kind", "") == "f" for leaf in jax.tree.leaves(value))
    ),
)
IMAGES = Array("a uint8 array [N, H, W, C], N from 1 on,", "u", (None,) * 4, dtype="uint8")
AUGMENTATION = Optional(FUNCTION)
SHARE = Optional(Number("a number in [0, 1]", lambda share: 0 <= share <= 1, traced=True))
NUM_STEPS = Whole(0, MAX_STEPS, "2**31 - 1")
ORDER = Array("a flat array of whole numbers", "iu", (None,))


class IsBatch(checks.Kind):
    """A batch whose images, labels and weights belong together."""

    words = "a Batch of images, labels and weights"

    def check(self, name: str, value: Batch) -> None:
        if not isinstance(value, Batch):
            checks.raise_invalid(name, value, self.words)
        IMAGES.check(f"{name}.images", value.images)
        size = value.images.shape[0]
        check_labels(f"{name}.labels", value.labels, size)
        words = f"a float array [{size}] of finite weights from 0 on, not all of them 0,"
        Array(words, "f", (size,), is_allowed=_are_weights).check(f"{name}.weights", value.weights)


def _are_weights(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).all() and (values >= 0).all() and (values > 0).any())


BATCH = IsBatch()


def check_start(given: SimpleNamespace) -> None:
    """Raises ValueError if the model would be trained wrongly on such images."""
    image_shape = given.images.shape[1:]
    key = jax.eval_shape(lambda: jax.random.key(0, impl="threefry2x32"))
    params = jax.eval_shape(lambda key: init_params(given.model, key, image_shape), key)
    check_flags(given.model, params, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32), key)


def check_step(given: SimpleNamespace) -> None:
    """Raises ValueError if there are labels beyond the model's classes, or the parameters are not the model's."""
    check_classes("batch.labels", given.model, given.state.params, given.batch.images, given.batch.labels)


def check_evaluation(given: SimpleNamespace) -> None:
    """Raises ValueError if there are labels beyond the model's classes, or the parameters are not the model's."""
    check_classes("split.labels", given.model, given.params, given.split.images, given.split.labels)


def check_classes(name: str, model: nn.Module, params, images, labels) -> None:
    """Raises ValueError if labels `[N]` reach beyond the logits that a model returns for images `[N, H, W, C]`."""
    inputs = jax.ShapeDtypeStruct((1, *images.shape[1:]), jnp.float32)
    logits = jax.eval_shape(lambda params, inputs: apply(model, params, inputs), params, inputs)
    check_labels(name, labels, images.shape[0], logits.shape[-1])


def check_fit(given: SimpleNamespace) -> None:
    """Raises ValueError if the numbers of `fit` do not fit together."""
    num_examples = given.split.labels.shape[0]
    padded = given.padded_batch_size
    if checks.is_traced(given.batch_size):
        needed, least = 0, 1
        if padded is None:
            raise ValueError("padded_batch_size is None; a whole number is needed where batch_size is traced")
    else:
        least = int(checks.as_scalar(given.batch_size))
        if least > num_examples:
            Whole(1, num_examples, f"the {num_examples} training images").check("batch_size", least)
        needed = given.num_steps * least
        padded = least if padded is None else padded
        if padded < least:
            raise ValueError(f"padded_batch_size is {padded}; it is at least batch_size, {least}")
    if given.num_steps * padded > MAX_EXAMPLES:
        raise ValueError(
            f"num_steps is {given.num_steps} of padded_batch_size {padded}; one call takes at most 2**31 - 1 examples: "
            "call it again from the state it returns"
        )
    words = f"an int32 array of at least num_steps * batch_size indices in [0, {num_examples})"
    if given.order.shape[0] < needed:
        checks.raise_invalid("order", given.order, words)
    Array(words, "iu", (None,), is_allowed=lambda rows: rows.min() >= 0 and rows.max() < num_examples).check(
        "order", given.order
    )
