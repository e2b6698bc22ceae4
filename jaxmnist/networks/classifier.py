"""Trained classifiers, and how they are saved by orbax: written atomically, and read without executing anything."""

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmnist import checks
from jaxmnist.checks import PATH, SEED, Choice, Optional, Where, checked_by, is_sequence, raise_invalid, shown
from jaxmnist.core import training
from jaxmnist.core.adapters.factory import model_factory
from jaxmnist.core.arguments import MODEL, UNCONFIGURED, check_range
from jaxmnist.core.inputs import random_key, to_unit_range
from jaxmnist.core.model import Model, ModelLike
from jaxmnist.core.models import MODELS
from jaxmnist.data.dataset import INPUTS
from jaxmnist.host.files import FORMAT, check_format, check_links, check_room, read_json, stored_bytes, write_text
from jaxmnist.limits import MAX_LAYERS
from jaxmnist.networks.model_files import DESCRIPTION, MODEL_FOLDER, check_model, checksum, remove_model
from jaxmnist.values import described, with_tuples

MODULES = re.compile(r"\b\w+\.(?=[A-Za-z_<])")
# Limits on what a stranger's file may describe; no sensible model reaches them.
MAX_EXTENT, MAX_AXES, MAX_WORDS = 2**12, 8, 200
INPUT_SHAPE = Where(
    f"a tuple of at most {MAX_AXES} whole numbers from 1 to {MAX_EXTENT}",
    lambda value: (
        isinstance(value, tuple)
        and len(value) <= MAX_AXES
        and all(checks.is_whole(extent) and 1 <= extent <= MAX_EXTENT for extent in value)
    ),
)
INPUT_DTYPE = Choice(("uint8", "int32", "float32"))


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A function from inputs, such as images, to class probabilities: a trained model, or an ensemble of several.

    Attributes:
      model: a flax linen module, or anything else of which a `Model` can be made.
      params: M trees of parameters, one for each member of the ensemble.
      input_shape: of one example that it was trained on, such as `(H, W, C)`.
      class_names: K names.
      model_states: M states, from `State.model_state`; none if the model has none.
      input_dtype: the type of the numbers it was trained on, `"uint8"`, `"int32"` or `"float32"`.

    Raises:
      ValueError: an argument is not as described above.
    """

    model: ModelLike
    params: tuple[optax.Params, ...]
    input_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    model_states: tuple[Any, ...] = ()
    input_dtype: str = "uint8"

    def __post_init__(self) -> None:
        MODEL.check("model", self.model)
        if not isinstance(self.params, tuple) or not self.params:
            raise_invalid("params", self.params, "a tuple of one tree of parameters for each member of the ensemble")
        if len(self.model_states) not in (0, len(self.params)):
            raise_invalid("model_states", self.model_states, f"a tuple of {len(self.params)} states, or of none,")
        INPUT_SHAPE.check("input_shape", self.input_shape)
        INPUT_DTYPE.check("input_dtype", self.input_dtype)

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """Returns class probabilities, the mean over the ensemble.

        Args:
          inputs: `[N, *input_shape]` numbers that `input_dtype` holds, or without a last axis of 1; N is at least 1.

        Returns:
          `[N, K]` float32.

        Raises:
          ValueError: the inputs have another shape or dtype, or numbers that are not finite or beyond `input_dtype`.
        """
        return self.each(inputs).mean(axis=0)

    def each(self, inputs: np.ndarray) -> np.ndarray:
        """Returns the probabilities of each member by itself, `[M, N, K]` float32; otherwise like `__call__`."""
        inputs = np.asarray(inputs)
        if self.input_shape[-1:] == (1,) and inputs.shape[1:] == self.input_shape[:-1]:
            inputs = inputs[..., None]
        # uint8 alone is scaled, so no other type stands for it, and it for no other.
        is_of_type = np.can_cast(inputs.dtype, self.input_dtype, "same_kind") and (
            (inputs.dtype == np.uint8) == (self.input_dtype == "uint8")
        )
        if inputs.shape[1:] != self.input_shape or not is_of_type or not len(inputs):
            expected = ", ".join(map(str, ("N", *self.input_shape)))
            raise ValueError(
                f"inputs are {inputs.dtype} of shape {inputs.shape}; expected {self.input_dtype} [{expected}], N > 0"
            )
        INPUTS.check("inputs", inputs)
        check_range("inputs", inputs, self.input_dtype)
        model, inputs = MODEL.convert(self.model), inputs.astype(self.input_dtype)
        variables = zip(self.params, self.model_states or [{}] * len(self.params), strict=True)
        return np.stack([np.asarray(_probabilities(model, each, inputs)) for each in variables])


def probabilities(model: Model, variables: tuple[optax.Params, Any], inputs: jax.Array) -> jax.Array:
    """Returns the class probabilities `[N, K]` float32 of inputs `[N, ...]` of a split, in batches of a fixed size.

    Args:
      model: the model.
      variables: its parameters and state.
      inputs: of one example or more.
    """
    num_examples = inputs.shape[0]
    batch_size = min(training.EVALUATION_BATCH_SIZE, num_examples)

    # `lax.map` with a `batch_size` would be a `vmap` over examples, under which a convolution is slower.
    def batch_probabilities(start):
        rows = start + jnp.arange(batch_size, dtype=jnp.int32)
        return jax.nn.softmax(training.predict(model, *variables, inputs.at[rows].get(mode="clip")))

    batches = jax.lax.map(batch_probabilities, jnp.arange(0, num_examples, batch_size, dtype=jnp.int32))
    return batches.reshape(-1, batches.shape[-1])[:num_examples]


_probabilities = jax.jit(probabilities, static_argnums=0)


class IsClassifier(checks.Kind):
    """A classifier."""

    words = "a Classifier"

    def check(self, name: str, value: Any) -> None:
        if not isinstance(value, Classifier):
            checks.raise_invalid(name, value, self.words)


SEEDS = Where(
    f"a sequence of distinct seeds, whole numbers from 0 to {SEED.high_words},",
    lambda value: (
        is_sequence(value) and len(value) > 0 and all(map(SEED.accepts, value)) and len(set(value)) == len(value)
    ),
)


def _check_save(given: SimpleNamespace) -> None:
    count = len(given.classifier.params)
    if len(given.seeds) != count:
        raise_invalid("seeds", given.seeds, f"a sequence of {count} seeds, one for each member of the ensemble,")


@checked_by(_check_save, folder=PATH, classifier=IsClassifier(), seeds=SEEDS)
def save_model(folder: str | Path, classifier: Classifier, seeds: Sequence[int]) -> None:
    """Saves a trained classifier, so that `load_model` of the same folder returns it.

    It is written into the subfolder `model`: `model.json`, and the parameters of each seed.

    Args:
      folder: created if it does not exist. An older model in it is replaced; other files stay.
      classifier: what to save. A model that is not one of this package is saved without its code: `load_model` has to
        be given it again.
      seeds: distinct, one for each member of the ensemble.

    Raises:
      ValueError: an argument is not as described above, or a name that is needed belongs to something that
        `save_model` did not write.
      OSError: the folder cannot be written.
    """
    import orbax.checkpoint as ocp

    folder = Path(folder).absolute()
    check_model(folder, seeds)
    remove_model(folder, seeds)
    place = folder / MODEL_FOLDER
    place.mkdir(parents=True, exist_ok=True)
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            states: Any = classifier.model_states or [{}] * len(seeds)
            for seed, params, state in zip(seeds, classifier.params, states, strict=True):
                checkpointer.save(place / f"params_{seed}", _saved(_is_ours(classifier.model), params, state))
    except Exception as error:  # if a disk is full, orbax raises many kinds of errors
        raise OSError(f"the model cannot be saved in {folder}: {checks.reason(error)}") from None
    description = _description(classifier, seeds)
    description["crc32"] = checksum(place, description)
    # Written last: if it is there, the parameters are complete.
    write_text(place / DESCRIPTION, json.dumps(description, indent=2) + "\n")


def _description(classifier: Classifier, seeds: Sequence[int]) -> dict:
    """Returns what `model.json` says; `_described` is the inverse."""
    return {
        "format": FORMAT,
        "model": model_factory(classifier.model).name,
        "fields": _fields(classifier.model),
        "seeds": [int(seed) for seed in seeds],
        "image_shape": classifier.input_shape,
        "input_dtype": classifier.input_dtype,
        "class_names": classifier.class_names,
    }


def _fields(model: Any) -> Any:
    """Returns the fields of a model: of one of ours by name, and of another in words."""
    defaults = model_factory(model).defaults
    return defaults if _is_ours(model) else described(defaults)


def _is_ours(model: Any) -> bool:
    """Returns whether a model can be made again from its name and its fields."""
    return MODELS.get(type(model).__name__) is type(model)


def _saved(is_ours: bool, params: optax.Params, state: Any) -> Any:
    """Returns what is saved of one member; of others' trees the arrays alone, since their nodes may be of any type."""
    return {"params": params} if is_ours else {"leaves": jax.tree.leaves((params, state))}


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: list(leaf.shape), tree)


@checked_by(folder=PATH, model=Optional(UNCONFIGURED))
def load_model(folder: str | Path, model: Any = None) -> Classifier:
    """Returns the trained classifier that `save_model` or `experiments/train_cnn.py` saved in a folder.

    Loading a stranger's folder executes nothing: it can only name one of this package's models and hold numbers. Links
    that lead out of the folder are not followed.

    Args:
      folder: the folder that was given to `save_model`.
      model: the classifier's model; needed unless it is one of this package.

    Raises:
      ValueError: the folder holds no model, or a damaged one.
    """
    import orbax.checkpoint as ocp

    place = Path(folder).absolute() / MODEL_FOLDER
    try:
        description = read_json(place / DESCRIPTION)
        check_format(description.get("format", FORMAT), place / DESCRIPTION)
        check_links(place)
        crc32 = description.pop("crc32", None)  # an earlier version wrote none
        model, shape, dtype, class_names = _described(description, model)
        inputs = jax.eval_shape(to_unit_range, jax.ShapeDtypeStruct((1, *shape), dtype))
        variables = jax.eval_shape(MODEL.convert(model).init, random_key(0), inputs)
        like = _saved(_is_ours(model), *variables)
        check_room(sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(like)), stored_bytes(place))
        if crc32 not in (None, checksum(place, description)):
            raise ValueError("its content does not match its checksum")
        with ocp.StandardCheckpointer() as checkpointer:
            members = []
            for seed in description["seeds"]:
                saved = place / f"params_{int(seed)}"
                # Orbax would notice other shapes too, but leaves work behind that complains later.
                if _shapes(checkpointer.metadata(saved).item_metadata.tree) != _shapes(like):
                    raise ValueError(
                        f"{saved.name} does not have the shapes of the {description['model']} described there"
                    )
                arrays = jax.tree.leaves(checkpointer.restore(saved, like))
                members.append(jax.tree.unflatten(jax.tree.structure(variables), arrays))
        params, states = zip(*members, strict=True)
        return Classifier(model, params, shape, class_names, states if jax.tree.leaves(states) else (), dtype)
    except FileNotFoundError:
        raise ValueError(
            f"{folder} holds no trained model: the training has not ended, it diverged, or this is another folder"
        ) from None
    except Exception as error:  # for damaged files, orbax raises whatever its parser runs into
        raise ValueError(f"the model in {folder} cannot be read: {checks.reason(error)}") from None


def _described(description: dict, model: Any) -> tuple[Any, tuple[int, ...], str, tuple[str, ...]]:
    """Returns the model, shape and type of its inputs, and its class names; a stranger may have written anything."""
    name, fields = str(description["model"]), description["fields"]
    shape, class_names = tuple(description["image_shape"]), tuple(description["class_names"])
    INPUT_SHAPE.check("its image_shape", shape)
    dtype = description.get("input_dtype", "uint8")
    INPUT_DTYPE.check("its input_dtype", dtype)
    if model is None:
        model = _ours(name, fields)
        checks.Strings(model.num_classes).check("its class_names", class_names)
    elif model_factory(model).name == name:
        found = _fields(_ours(name, fields)) if isinstance(fields, dict) else fields
        # By name alone, since a function may come from another module than in the program that saved it.
        saved, given = (MODULES.sub("", str(each)) for each in (found, _fields(model)))
        if saved != given:
            raise ValueError(f"its {name} has the fields {saved[:MAX_WORDS]}, not {given[:MAX_WORDS]}")
    if not description["seeds"]:
        raise ValueError("it has no seeds")
    return model, shape, dtype, class_names


def _ours(name: str, fields: Any) -> Any:
    """Returns the model of this package with these fields; those of a person's model of the same name are a string."""
    if name not in MODELS or not isinstance(fields, dict):
        raise ValueError(
            f"it names the model {shown(name)}, which is not this package's {', '.join(MODELS)}: give model="
        )
    if len(fields.get("features", ())) > MAX_LAYERS:
        raise ValueError(f"it has {len(fields['features'])} layers; at most {MAX_LAYERS} are allowed")
    return MODELS[name](**with_tuples(fields))
