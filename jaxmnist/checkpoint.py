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

from jaxmnist import models, training
from jaxmnist.files import write_text

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


def save_model(folder: Path, classifier: Classifier, seeds: Sequence[int]) -> None:
    """Writes `model.json` and, by seed, the parameters; `load_model` reads them.

    Args:
      folder: is made where it is not there; an older model in it is replaced.
      classifier: what to save.
      seeds: that of each of its parameters, distinct.
    """
    import orbax.checkpoint as ocp

    folder = folder.absolute()
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
        "seeds": list(seeds),
        "image_shape": classifier.image_shape,
        "class_names": classifier.class_names,
    }
    # Written last: where it is, the parameters are whole.
    write_text(folder / "model.json", json.dumps(description, indent=2) + "\n")


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: list(leaf.shape), tree)


def load_model(folder: str | Path) -> Classifier:
    """Returns the trained model in the output folder of `experiments/train_cnn.py`, ready to be called on images.

    Raises:
      ValueError: the folder holds no model, or a broken one.
    """
    import orbax.checkpoint as ocp

    place = Path(folder).absolute() / "model"
    try:
        description = json.loads((place / "model.json").read_text())
        as_tuples = {name: tuple(v) if isinstance(v, list) else v for name, v in description["fields"].items()}
        model = MODELS[description["model"]](**as_tuples)
        shape = tuple(description["image_shape"])
        image = np.zeros((1, *shape), np.float32)
        like = jax.eval_shape(model.init, jax.random.key(0), image)
        with ocp.StandardCheckpointer() as checkpointer:
            params = []
            for seed in description["seeds"]:
                saved = place / f"params_{int(seed)}"
                # Where shapes differ, orbax raises too, but leaves work behind that complains at some later time.
                if _shapes(checkpointer.metadata(saved).item_metadata.tree) != _shapes(like):
                    raise ValueError(f"{saved.name} has not the shapes of the {description['model']} described there")
                params.append(checkpointer.restore(saved, like))
        return Classifier(model, tuple(params), shape, tuple(description["class_names"]))
    except FileNotFoundError:
        raise ValueError(
            f"{folder} holds no trained model: the training has not ended or diverged, or it is another folder"
        ) from None
    except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
        raise ValueError(f"the model in {folder} cannot be read: {error}") from None
