"""A Haiku transform as a model."""

import haiku as hk

from jaxmnist.core.adapters.flags import argument_names, call_flags
from jaxmnist.core.model import Model

# Of the function that was transformed, Haiku keeps no name.
NAME = "hk.transform"


def adapt(transform: hk.Transformed | hk.TransformedWithState) -> Model:
    """Returns `hk.transform(f)` or `hk.transform_with_state(f)` as a model, whose state is Haiku's."""
    takes_key = "rng" in argument_names(transform.apply)  # not after `hk.without_apply_rng`
    has_state = isinstance(transform, hk.TransformedWithState)

    def flags(training):
        return call_flags(NAME, transform.init, training, num_inputs=2)

    def init(key, inputs):
        # Haiku makes averages at a call in training.
        made = transform.init(key, inputs, **flags(training=True))
        return made if has_state else (made, {})

    def apply(params, state, inputs, *, training, key=None):
        keywords = flags(training)
        keys = (key,) if takes_key else ()
        if has_state:
            return transform.apply(params, state, *keys, inputs, **keywords)
        return transform.apply(params, *keys, inputs, **keywords), state

    return Model(init, apply)
