"""Training states and, by orbax, trained models in folders: whole or not there; loading them executes nothing."""

import concurrent.futures
import dataclasses
import json
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmnist import arguments, models, training
from jaxmnist.files import (
    FORMAT,
    check_format,
    check_links,
    check_room,
    read_arrays,
    read_json,
    stored_bytes,
    write_arrays,
    write_text,
)

NUM_KEPT = 2
# More than any sensible model has.
MAX_EXTENT, MAX_LAYERS = 2**12, 100
# A folder names its model; only these can be named, so that a stranger's folder runs no code of the stranger's.
MODELS: dict[str, type[nn.Module]] = {
    model.__name__: model for model in (models.SoftmaxRegression, models.MLP, models.CNN)
}


class Checkpoints:
    """The newest two states of a training, a file each; used as a context manager, which waits for the last save.

    Not by orbax: it does not notice damage to large arrays, and where it notices some, or a disk is full, it complains
    for pages. A zip archive of arrays has a checksum of each, and is whole or not there.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._writer = concurrent.futures.ThreadPoolExecutor(1)
        self._saving: concurrent.futures.Future | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._wait()
        finally:
            self._writer.shutdown()

    def save(self, step: int, state: Any, notes: Any = None) -> None:
        """Saves a tree of arrays, and beside it what JSON can hold; goes on while the file is written.

        Raises:
          OSError: this state, or the one before, cannot be written.
        """
        # Copied, since training will use the memory of the state again.
        arrays = {f"{index:06d}": np.array(_data(leaf)) for index, leaf in enumerate(jax.tree.leaves(state))}
        arrays["notes"] = np.array(json.dumps(notes))
        self._wait()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._saving = self._writer.submit(self._write, step, arrays)

    def restore(self, like: Any, warn: Callable[[str], None] = warnings.warn) -> tuple[int, Any, Any] | None:
        """Returns step, state and notes of the newest save that is whole, or None where there is none.

        Args:
          like: a state of the same shapes and on the same devices, for example the initial one.
          warn: is called with a sentence about each save that is damaged; such a save is removed.

        Raises:
          OSError: a file cannot be read.
        """
        files = saved_states(self._folder)
        for path in files:
            # By itself, since what cannot be read now, for want of rights or of the network, is not damaged.
            content = path.read_bytes()
            try:
                state, notes = _read(content, like)
                return int(path.stem), state, notes
            except (ValueError, KeyError):
                warn(f"the state of step {path.stem} in {self._folder} cannot be read and is left out")
                path.unlink()
        if files:
            warn(f"no state in {self._folder} can be read: its training starts again")
        return None

    def _write(self, step: int, arrays: dict[str, Any]) -> None:
        write_arrays(self._folder / f"{step}.npz", arrays)
        for path in saved_states(self._folder)[NUM_KEPT:]:
            path.unlink()

    def _wait(self) -> None:
        """Waits for the save that is running."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()


def saved_states(folder: Path) -> list[Path]:
    """Returns the files of the states in a folder, the newest first."""
    return sorted((path for path in folder.glob("*.npz") if path.stem.isdigit()), key=lambda path: -int(path.stem))


def _read(content: bytes, like: Any) -> tuple[Any, Any]:
    """Returns a saved state, as `like`, and its notes; ValueError or KeyError where it is damaged or another's."""
    leaves, structure = jax.tree.flatten(like)
    arrays = read_arrays(content)
    notes = json.loads(str(arrays["notes"]))
    read = [arrays[f"{index:06d}"] for index in range(len(arrays) - 1)]
    for leaf, array in zip(leaves, read, strict=True):
        expected = _data(leaf)
        if array.shape != expected.shape or array.dtype != expected.dtype:
            raise ValueError(f"{array.dtype}{array.shape} is not {expected.dtype}{expected.shape}")
    return jax.tree.unflatten(structure, map(_like, leaves, read)), notes


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _data(leaf: Any) -> Any:
    """Returns an array's numbers, those of a random key too."""
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _like(leaf: Any, array: np.ndarray) -> Any:
    """Returns an array as what `_data` was given, on the same devices."""
    if not isinstance(leaf, jax.Array):
        return array
    if not _is_key(leaf):
        return jax.device_put(array, leaf.sharding)
    key = jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(leaf))
    return jax.device_put(key, leaf.sharding)


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


_probabilities = jax.jit(training.probabilities, static_argnums=0)


def save_model(folder: str | Path, classifier: Classifier, seeds: Sequence[int]) -> None:
    """Writes `model.json` and, by seed, the parameters; `load_model` reads them.

    Args:
      folder: is made where it is not there; an older model in it is replaced.
      classifier: what to save.
      seeds: that of each of its parameters, distinct.

    Raises:
      ValueError: an argument is none of these.
      OSError: the folder cannot be written.
    """
    import orbax.checkpoint as ocp

    arguments.path("folder", folder)
    if not isinstance(classifier, Classifier):
        arguments.refuse("classifier", classifier, "a Classifier")
    if type(classifier.model).__name__ not in MODELS:
        arguments.refuse("classifier.model", classifier.model, f"one of {', '.join(MODELS)}")
    count = len(classifier.params)
    if not arguments.is_sequence(seeds) or not len(seeds) == count > 0:
        arguments.refuse("seeds", seeds, f"a sequence of {count} seeds, one for each of the parameters,")
    for seed in seeds:
        arguments.seed(seed, "seeds")
    if len(set(seeds)) < count:
        arguments.refuse("seeds", seeds, "a sequence of distinct seeds")
    folder = Path(folder).absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            for seed, params in zip(seeds, classifier.params, strict=True):
                checkpointer.save(folder / f"params_{seed}", params)
    except Exception as error:  # orbax raises many kinds where a disk is full
        raise OSError(f"the model cannot be saved in {folder}: {arguments.reason(error)}") from None
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
    write_text(folder / "model.json", json.dumps(description, indent=2) + "\n")


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: list(leaf.shape), tree)


def load_model(folder: str | Path) -> Classifier:
    """Returns the trained model in the output folder of `experiments/train_cnn.py`, ready to be called on images.

    A stranger's folder executes nothing: it names one of this package's models, and holds numbers. What leads out of
    the folder is not read.

    Raises:
      ValueError: the folder holds no model, or a broken one.
    """
    import orbax.checkpoint as ocp

    arguments.path("folder", folder)
    place = Path(folder).absolute() / "model"
    try:
        description = read_json(place / "model.json")
        check_format(description.get("format", FORMAT), place / "model.json")
        check_links(place)
        model, shape, class_names = _described(description)
        like = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *shape), np.float32))
        check_room(sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(like)), stored_bytes(place))
        with ocp.StandardCheckpointer() as checkpointer:
            params = []
            for seed in description["seeds"]:
                saved = place / f"params_{int(seed)}"
                # Where shapes differ, orbax raises too, but leaves work behind that complains at some later time.
                if _shapes(checkpointer.metadata(saved).item_metadata.tree) != _shapes(like):
                    raise ValueError(f"{saved.name} has not the shapes of the {description['model']} described there")
                params.append(checkpointer.restore(saved, like))
        return Classifier(model, tuple(params), shape, class_names)
    except FileNotFoundError:
        raise ValueError(
            f"{folder} holds no trained model: the training has not ended or diverged, or it is another folder"
        ) from None
    except Exception as error:  # of broken files, orbax raises whatever its parsing runs into
        raise ValueError(f"the model in {folder} cannot be read: {arguments.reason(error)}") from None


def _described(description: dict) -> tuple[nn.Module, tuple[int, int, int], tuple[str, ...]]:
    """Returns the model, the shape of its images and its class names, of which a stranger may have written anything."""
    as_tuples = {name: tuple(v) if isinstance(v, list) else v for name, v in description["fields"].items()}
    kind = MODELS.get(str(description["model"]))
    if kind is None:
        raise ValueError(
            f"it names the model {arguments.shown(description['model'])}; it is one of {', '.join(MODELS)}"
        )
    shape, class_names = tuple(description["image_shape"]), tuple(description["class_names"])
    if len(shape) != 3 or not all(arguments.is_whole(extent) and 1 <= extent <= MAX_EXTENT for extent in shape):
        raise ValueError(
            f"its image_shape is {arguments.shown(shape)}; three whole numbers up to {MAX_EXTENT} are needed"
        )
    if len(as_tuples.get("features", ())) > MAX_LAYERS:
        raise ValueError(f"it has {len(as_tuples['features'])} layers; {MAX_LAYERS} are allowed")
    model = kind(**as_tuples)
    arguments.texts("its class_names", class_names, model.num_classes)
    if not description["seeds"]:
        raise ValueError("it has no seeds")
    return model, shape, class_names
