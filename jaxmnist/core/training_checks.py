"""What `training.py` is given, checked before it is used; of traced arrays, shapes and dtypes alone."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxmnist import checks
from jaxmnist.data.dataset import MAX_EXAMPLES


def check_built(model: nn.Module) -> None:
    """Raises ValueError where a model is none."""
    if not isinstance(model, nn.Module):
        checks.refuse("model", model, "a flax linen module")


def check_optimizer(optimizer: optax.GradientTransformation) -> None:
    """Raises ValueError where an optimizer is none."""
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        checks.refuse("optimizer", optimizer, "a gradient transformation, such as optax.sgd(0.1),")


def check_params(params: optax.Params) -> None:
    """Raises ValueError where parameters are no tree of float arrays."""
    leaves = jax.tree.leaves(params)
    if not leaves or not all(getattr(getattr(leaf, "dtype", None), "kind", "") == "f" for leaf in leaves):
        checks.refuse("params", params, "a tree of float arrays")


def check_images(name: str, images: jax.Array) -> None:
    """Raises ValueError where images are no uint8 array `[N, H, W, C]`."""
    checks.array(name, images, "a uint8 array [N, H, W, C], N from 1 on,", "u", None, None, None, None)
    if images.dtype != jnp.uint8:
        checks.refuse(name, images, "a uint8 array [N, H, W, C]")


def check_step(model: nn.Module, optimizer: optax.GradientTransformation, augment, label_smoothing) -> None:
    """Raises ValueError where what a step is made of is not as `train_step` takes it."""
    check_built(model)
    check_optimizer(optimizer)
    if augment is not None:
        checks.function("augment", augment)
    if label_smoothing is not None and not checks.is_traced(label_smoothing):
        value = label_smoothing.item() if getattr(label_smoothing, "shape", None) == () else label_smoothing
        checks.number("label_smoothing", value, "a number in [0, 1]", lambda share: 0 <= share <= 1)


def check_order(split, order, batch_size, num_steps, padded_batch_size) -> int:
    """Returns the padded batch size; raises ValueError where the numbers of `fit` do not fit together."""
    checks.whole("num_steps", num_steps, 0, checks.MAX_STEPS, "2**31 - 1")
    num_examples = split.labels.shape[0]
    needed = 0
    if checks.is_traced(batch_size):
        checks.array("batch_size", batch_size, "a whole number", "iu")
        if padded_batch_size is None:
            raise ValueError("padded_batch_size is None; a whole number is needed where batch_size is traced")
    else:
        value = batch_size.item() if getattr(batch_size, "shape", None) == () else batch_size
        checks.whole("batch_size", value, 1, num_examples, f"the {num_examples} training images")
        needed = num_steps * int(value)
        padded_batch_size = int(value) if padded_batch_size is None else padded_batch_size
        if checks.is_whole(padded_batch_size) and padded_batch_size < value:
            raise ValueError(f"padded_batch_size is {padded_batch_size}; it is at least batch_size, {value}")
    checks.whole("padded_batch_size", padded_batch_size, 1)
    if num_steps * padded_batch_size > MAX_EXAMPLES:
        raise ValueError(
            f"num_steps is {num_steps} of padded_batch_size {padded_batch_size}; one call takes at most 2**31 - 1 "
            "examples: call it again from the state it returns"
        )

    def is_in_range(values):
        return values.min() >= 0 and values.max() < num_examples

    allowed = f"an int32 array of at least num_steps * batch_size indices in [0, {num_examples})"
    shape: tuple[int, ...] = getattr(order, "shape", ())
    if len(shape) != 1 or shape[0] < needed:
        checks.refuse("order", order, allowed)
    checks.array("order", order, allowed, "iu", shape[0], is_allowed=is_in_range)
    return padded_batch_size
