"""Training states in folders: written atomically, with a checksum; loading them executes nothing."""

import concurrent.futures
import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmnist.host.files import (
    check_folder,
    check_ours,
    is_ours,
    read_arrays,
    remove_if_empty,
    remove_temporary_files,
    set_aside,
    write_arrays,
)

NUM_KEPT = 2


class Checkpoints:
    """The newest two states of a training, a file each; used as a context manager, which waits for the last save.

    Not by orbax: it does not notice damage to large arrays, and where it notices some, or a disk is full, it complains
    for pages. A zip archive of arrays has a checksum of each, and is written atomically.
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
        """Saves a tree of arrays, with notes that JSON can hold; returns while the file is still being written.

        Raises:
          OSError: this state, or the one before, cannot be written.
        """
        # Copied, since training will use the memory of the state again.
        arrays = {f"{index:06d}": np.array(_data(leaf)) for index, leaf in enumerate(jax.tree.leaves(state))}
        arrays["notes"] = np.array(json.dumps(notes))
        self._wait()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._saving = self._writer.submit(self._write, step, arrays)

    def restore(
        self,
        like: Any,
        warn: Callable[[str], None] = warnings.warn,
        check_notes: Callable[[Any], None] = lambda notes: None,
    ) -> tuple[int, Any, Any] | None:
        """Returns step, state and notes of the newest save that can be read, or None if there is none.

        Args:
          like: a state of the same shapes and on the same devices, for example the initial one.
          warn: is called with a sentence about each save that cannot be read; such a save is set aside.
          check_notes: is called with the notes of a save, and raises ValueError if it is one of another training.

        Raises:
          OSError: a file cannot be read for another reason than what is in it.
          ValueError: a file of another origin has the name of a state.
        """
        check_states(self._folder)
        remove_temporary_files(self._folder)
        files = saved_states(self._folder)
        for path in files:
            # By itself, since what cannot be read now, for want of rights or of the network, is not damaged.
            content = path.read_bytes()
            try:
                arrays = read_arrays(content)
                notes = json.loads(str(arrays.pop("notes")))
            except (ValueError, KeyError):
                arrays, notes = {}, None
            else:
                check_notes(notes)
            try:
                return int(path.stem), _as(like, arrays), notes
            except (ValueError, KeyError):
                aside = set_aside(path)
                warn(f"the state of step {path.stem} in {self._folder} cannot be read: it is now {aside.name}, unused")
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
    return sorted(filter(is_ours, _named_as_states(folder)), key=lambda path: -int(path.stem))


def check_states(folder: Path) -> None:
    """Raises ValueError if states cannot be kept in a folder, since something else has their names."""
    check_folder(folder)
    for path in _named_as_states(folder):
        check_ours(path)


def remove_states(folder: Path) -> None:
    """Removes the states in a folder, and the folder if nothing else is in it."""
    for path in saved_states(folder):
        path.unlink()
    remove_temporary_files(folder)
    remove_if_empty(folder)


def _named_as_states(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*.npz") if re.fullmatch("[0-9]+", path.stem)]


def _as(like: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Returns a saved state, as `like`; ValueError or KeyError if it is damaged or another's."""
    leaves, structure = jax.tree.flatten(like)
    read = [arrays[f"{index:06d}"] for index in range(len(arrays))]
    for leaf, array in zip(leaves, read, strict=True):
        expected = _data(leaf)
        if array.shape != expected.shape or array.dtype != expected.dtype:
            raise ValueError(f"{array.dtype}{array.shape} is not {expected.dtype}{expected.shape}")
    return jax.tree.unflatten(structure, map(_like, leaves, read))


def is_key(leaf: Any) -> bool:
    """Returns whether an array is one of random keys, which numpy cannot hold."""
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _data(leaf: Any) -> Any:
    """Returns an array's numbers as numpy can save them, those of a random key too."""
    if is_key(leaf):
        return jax.random.key_data(leaf)
    # bfloat16 and its like are no types of numpy's own: it would save them as bytes without a type.
    return np.asarray(leaf).view(f"u{leaf.dtype.itemsize}") if leaf.dtype.kind == "V" else leaf


def _like(leaf: Any, array: np.ndarray) -> Any:
    """Returns an array as what `_data` was given, on the same devices."""
    if not isinstance(leaf, jax.Array):
        return array
    if not is_key(leaf):
        return jax.device_put(array.view(leaf.dtype) if leaf.dtype.kind == "V" else array, leaf.sharding)
    key = jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(leaf))
    return jax.device_put(key, leaf.sharding)
