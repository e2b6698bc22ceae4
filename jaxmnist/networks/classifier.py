"""Training states and, by orbax, trained models in folders: written atomically; loading them executes nothing."""

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmnist import checks
from jaxmnist.core import training
from jaxmnist.core.model import init_params
from jaxmnist.core.models import MODELS
from jaxmnist.core.state import random_key
from jaxmnist.host.files import (
    FORMAT,
    check_folder,
    check_format,
    check_links,
    check_ours,
    check_room,
    is_ours,
    read_json,
    remove_if_empty,
    remove_temporary_files,
    stored_bytes,
    write_text,
)

MODEL_FOLDER, DESCRIPTION = "model", "model.json"
# What orbax writes into the folder of one seed's parameters, and how it names one that is not whole yet.
ORBAX_FILES = re.compile(
    r"_CHECKPOINT_METADATA|_METADATA|_sharding|_strings\.json|commit_success\.txt|array_metadatas/process_\d+"
    r"|(ocdbt\.process_\d+/)?(d/[0-9a-f]{32}|manifest\.ocdbt)(\.__lock)?"
)
ORBAX_TEMPORARY = ".orbax-checkpoint-tmp"
# More than any sensible model has.
MAX_EXTENT, MAX_LAYERS = 2**12, 100


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A trained model, or several of one kind as an ensemble: a function from images to class probabilities.

    Attributes:
      model: the linen module.
      params: the parameters of each of the ensemble.
      image_shape: height, width and channels of the images it was trained on.
      class_names: `[K]`.
    """

    model: nn.Module
    params: tuple[optax.Params, ...]
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns probabilities `[N, K]` float32, the mean over the ensemble.

        Args:
          images: `[N, H, W, C]` uint8, or `[N, H, W]` where there is one channel.

        Raises:
          ValueError: another shape or another dtype.
        """
        return self.each(images).mean(axis=0)

    def each(self, images: np.ndarray) -> np.ndarray:
        """Returns the probabilities of each of the ensemble by itself, `[M, N, K]` float32; as `__call__` else."""
        images = np.asarray(images)
        if images.ndim == 3:
            images = images[..., None]
        if images.shape[1:] != self.image_shape or images.dtype != np.uint8 or not len(images):
            expected = ", ".join(map(str, self.image_shape))
            raise ValueError(
                f"images are {images.dtype} of shape {images.shape}; expected uint8 [N, {expected}], N > 0"
            )
        return np.stack([np.asarray(_probabilities(self.model, params, images)) for params in self.params])


def probabilities(model: nn.Module, params: optax.Params, images: jax.Array) -> jax.Array:
    """Returns the class probabilities `[N, K]` float32 of images `[N, H, W, C]` uint8, in batches of a fixed size."""
    num_images = images.shape[0]
    batch_size = min(training.EVALUATION_BATCH_SIZE, num_images)

    # Not `lax.map` over images with its `batch_size`: that is a `vmap`, under which a convolution is slower.
    def batch_probabilities(start):
        rows = start + jnp.arange(batch_size, dtype=jnp.int32)
        return jax.nn.softmax(training.predict(model, params, images.at[rows].get(mode="clip")))

    batches = jax.lax.map(batch_probabilities, jnp.arange(0, num_images, batch_size, dtype=jnp.int32))
    return batches.reshape(-1, batches.shape[-1])[:num_images]


_probabilities = jax.jit(probabilities, static_argnums=0)


def save_model(folder: str | Path, classifier: Classifier, seeds: Sequence[int]) -> None:
    """Writes a trained model, for `load_model` of the same folder.

    It is in the folder `model` of that: `model.json` and, for each seed, its parameters.

    Args:
      folder: is made if there is none; an older model in it is replaced, and other files stay.
      classifier: what to save.
      seeds: that of each of its parameters, distinct.

    Raises:
      ValueError: an argument is not as described above, or what `save_model` did not write has a name that it needs.
      OSError: the folder cannot be written.
    """
    import orbax.checkpoint as ocp

    checks.path("folder", folder)
    if not isinstance(classifier, Classifier):
        checks.raise_invalid("classifier", classifier, "a Classifier")
    if type(classifier.model).__name__ not in MODELS:
        checks.raise_invalid("classifier.model", classifier.model, f"one of {', '.join(MODELS)}")
    count = len(classifier.params)
    if not checks.is_sequence(seeds) or not len(seeds) == count > 0:
        checks.raise_invalid("seeds", seeds, f"a sequence of {count} seeds, one for each of the parameters,")
    for seed in seeds:
        checks.seed(seed, "seeds")
    if len(set(seeds)) < count:
        checks.raise_invalid("seeds", seeds, "a sequence of distinct seeds")
    folder = Path(folder).absolute()
    check_model(folder, seeds)
    remove_model(folder, seeds)
    place = folder / MODEL_FOLDER
    place.mkdir(parents=True, exist_ok=True)
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            for seed, params in zip(seeds, classifier.params, strict=True):
                checkpointer.save(place / f"params_{seed}", {"params": params})
    except Exception as error:  # orbax raises many kinds where a disk is full
        raise OSError(f"the model cannot be saved in {folder}: {checks.reason(error)}") from None
    fields = {
        field.name: getattr(classifier.model, field.name)
        for field in dataclasses.fields(classifier.model)
        if field.name not in ("parent", "name")
    }
    description = {
        "format": FORMAT,
        "model": type(classifier.model).__name__,
        "fields": fields,
        "seeds": [int(seed) for seed in seeds],
        "image_shape": classifier.image_shape,
        "class_names": classifier.class_names,
    }
    # Written last: where it is, the parameters are whole.
    write_text(place / DESCRIPTION, json.dumps(description, indent=2) + "\n")


def check_model(folder: Path, seeds: Iterable[int]) -> None:
    """Raises ValueError where a model of these seeds cannot be saved, since something else has a name that it needs."""
    place = folder / MODEL_FOLDER
    check_folder(place)
    check_ours(place / DESCRIPTION)
    for saved in _params_folders(place, seeds):
        if not _is_orbax(saved):
            raise ValueError(f"{saved} holds what jaxmnist did not write: choose another folder, or move it out")


def remove_model(folder: Path, seeds: Iterable[int] = ()) -> None:
    """Removes the model that `save_model` wrote into a folder, and what it left of these seeds when it was killed."""
    place = folder / MODEL_FOLDER
    description = place / DESCRIPTION
    named: list = []
    if is_ours(description):
        named = read_json(description).get("seeds", [])
        # First, since it says that the parameters are whole.
        description.unlink()
    for saved in _params_folders(place, [*filter(checks.is_whole, named), *seeds]):
        if _is_orbax(saved):
            shutil.rmtree(saved)
    remove_temporary_files(place)
    remove_if_empty(place)


def _params_folders(place: Path, seeds: Iterable[int]) -> list[Path]:
    """Returns what has the name of the parameters of one of these seeds, saved or about to be."""
    names = [f"params_{seed}{suffix}" for seed in dict.fromkeys(seeds) for suffix in ("", ORBAX_TEMPORARY)]
    return [place / name for name in names if os.path.lexists(place / name)]


def _is_orbax(folder: Path) -> bool:
    """Returns whether a folder holds nothing but what orbax writes."""
    paths = [folder, *folder.rglob("*")]
    files = [path.relative_to(folder).as_posix() for path in paths if path.is_symlink() or not path.is_dir()]
    return not any(path.is_symlink() for path in paths) and all(map(ORBAX_FILES.fullmatch, files))


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: list(leaf.shape), tree)


def load_model(folder: str | Path) -> Classifier:
    """Returns the trained model that `save_model`, or `experiments/train_cnn.py`, wrote into a folder.

    A stranger's folder executes nothing: it names one of this package's models, and holds numbers. What leads out of
    the folder is not read.

    Raises:
      ValueError: the folder holds no model, or a broken one.
    """
    import orbax.checkpoint as ocp

    checks.path("folder", folder)
    place = Path(folder).absolute() / MODEL_FOLDER
    try:
        description = read_json(place / DESCRIPTION)
        check_format(description.get("format", FORMAT), place / DESCRIPTION)
        check_links(place)
        model, shape, class_names = _described(description)
        like = {"params": jax.eval_shape(lambda key: init_params(model, key, shape), random_key(0))}
        check_room(sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(like)), stored_bytes(place))
        with ocp.StandardCheckpointer() as checkpointer:
            params = []
            for seed in description["seeds"]:
                saved = place / f"params_{int(seed)}"
                # Where shapes differ, orbax raises too, but leaves work behind that complains at some later time.
                if _shapes(checkpointer.metadata(saved).item_metadata.tree) != _shapes(like):
                    raise ValueError(f"{saved.name} has not the shapes of the {description['model']} described there")
                params.append(checkpointer.restore(saved, like)["params"])
        return Classifier(model, tuple(params), shape, class_names)
    except FileNotFoundError:
        raise ValueError(
            f"{folder} holds no trained model: the training has not ended or diverged, or it is another folder"
        ) from None
    except Exception as error:  # of broken files, orbax raises whatever its parsing runs into
        raise ValueError(f"the model in {folder} cannot be read: {checks.reason(error)}") from None


def _described(description: dict) -> tuple[nn.Module, tuple[int, int, int], tuple[str, ...]]:
    """Returns the model, the shape of its images and its class names, of which a stranger may have written anything."""
    as_tuples = {name: tuple(v) if isinstance(v, list) else v for name, v in description["fields"].items()}
    kind = MODELS.get(str(description["model"]))
    if kind is None:
        raise ValueError(f"it names the model {checks.shown(description['model'])}; it is one of {', '.join(MODELS)}")
    shape, class_names = tuple(description["image_shape"]), tuple(description["class_names"])
    if len(shape) != 3 or not all(checks.is_whole(extent) and 1 <= extent <= MAX_EXTENT for extent in shape):
        raise ValueError(f"its image_shape is {checks.shown(shape)}; three whole numbers up to {MAX_EXTENT} are needed")
    if len(as_tuples.get("features", ())) > MAX_LAYERS:
        raise ValueError(f"it has {len(as_tuples['features'])} layers; {MAX_LAYERS} are allowed")
    model = kind(**as_tuples)
    checks.texts("its class_names", class_names, model.num_classes)
    if not description["seeds"]:
        raise ValueError("it has no seeds")
    return model, shape, class_names
