"""Training states and trained models in folders, by orbax: whole or not there; loading them executes nothing."""

import dataclasses
import json
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax

from jaxmnist import arguments, models, training
from jaxmnist.files import check_links, check_room, read_json, stored_bytes, write_text

# More than any sensible model has.
MAX_EXTENT, MAX_LAYERS = 2**12, 100
# A folder names its model; only these can be named, so that a stranger's folder runs no code of the stranger's.
MODELS: dict[str, type[nn.Module]] = {
    model.__name__: model for model in (models.SoftmaxRegression, models.MLP, models.CNN)
}


class Checkpoints:
    """The newest two states of a training, in a folder; used as a context manager, which waits for the last save."""

    def __init__(self, folder: Path):
        import orbax.checkpoint as ocp

        self._manager = ocp.CheckpointManager(folder.absolute(), options=ocp.CheckpointManagerOptions(max_to_keep=2))

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception: object) -> None:
        self._manager.close()

    def save(self, step: int, state: Any, notes: Any = None) -> None:
        """Saves a tree of arrays, and beside it what JSON can hold; goes on while the files are written."""
        import orbax.checkpoint as ocp

        # Orbax would silently skip a save that is asked for while another one is running.
        self._manager.wait_until_finished()
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(state), notes=ocp.args.JsonSave(notes))
        self._manager.save(step, args=arguments)

    def restore(self, like: Any, warn: Callable[[str], None] = warnings.warn) -> tuple[int, Any, Any] | None:
        """Returns step, state and notes of the newest save that can be read, or None where there is none.

        Args:
          like: a state of the same shapes and on the same devices, for example the initial one.
          warn: is called with a sentence about each save that cannot be read; such a save is removed.
        """
        import orbax.checkpoint as ocp

        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(like), notes=ocp.args.JsonRestore())
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                restored = self._manager.restore(step, args=arguments)
                return step, restored.state, restored.notes
            except Exception:  # orbax raises many kinds, and for some damage a bare one
                warn(f"the state of step {step} in {self._manager.directory} cannot be read and is left out")
                # Orbax would refuse to save this step again.
                self._manager.delete(step)
        if steps:
            warn(f"no state in {self._manager.directory} can be read: its training starts again")
        return None


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
    with ocp.StandardCheckpointer() as checkpointer:
        for seed, params in zip(seeds, classifier.params, strict=True):
            checkpointer.save(folder / f"params_{seed}", params)
    fields = {
        field.name: getattr(classifier.model, field.name)
        for field in dataclasses.fields(classifier.model)
        if field.name not in ("parent", "name")
    }
    description = {
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
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"the model in {folder} cannot be read: {reason}") from None


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
