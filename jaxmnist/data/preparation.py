"""From the official files to a TFDS folder, and from a TFDS folder to arrays, both without TensorFlow.

TFDS's own preparation of the MNIST family needs TensorFlow to extract, read and encode. The builder here keeps
TFDS's description of the data (features, version, URLs, checksums) and does these three with the standard
library, numpy and pillow; what it writes is opened by plain `tfds.data_source`.
"""

import contextlib
import errno
import functools
import gzip
import hashlib
import importlib.util
import io
import os
import queue
import socket
import sys
import threading
import urllib.parse
import urllib.request
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxmnist import checks
from jaxmnist.data.dataset import DataError, Dataset, DatasetUnavailable, Split, prepared_folder, split_train

PROBE_TIMEOUT_S = 3.0
MNIST_FAMILY = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}
FILE_NAMES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
IDX_MAGIC = {1: 0x00000801, 3: 0x00000803}


def prepare(name: str, root: Path) -> None:
    """Writes a data set as a TFDS folder below `root`, from `root/downloads/manual/` or the network.

    Args:
      name: of a TFDS data set; for those outside the MNIST family, TFDS's own preparation is called, which
        needs TensorFlow for most of them.
      root: the TFDS folder.

    Raises:
      DatasetUnavailable: no files and no network, which is known within seconds and leaves nothing behind; no
        array_record; or a folder in which this user must not write.
      DataError: unknown data set, a wrong checksum, or a folder that cannot be written for another reason.
    """
    _check_array_record(name)
    try:
        if name in MNIST_FAMILY:
            files = _obtain_files(name, root / "downloads")
            root.mkdir(parents=True, exist_ok=True)
            builder = _builder_class(name)(data_dir=str(root), files=files)
        else:
            builder = _foreign_builder(name, root)
        # What TFDS prints is progress; standard output belongs to results.
        with contextlib.redirect_stdout(sys.stderr):
            builder.download_and_prepare(file_format="array_record")
    except OSError as error:
        # Another process may have prepared it meanwhile; TFDS then does not replace that one's folder.
        if prepared_folder(name, root) is None:
            kind = DatasetUnavailable if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) else DataError
            raise kind(f"dataset {name!r} cannot be prepared in {root}: {error}") from None


def _check_array_record(name: str) -> None:
    """Raises DatasetUnavailable if the package is missing that writes and reads TFDS's files without TensorFlow."""
    if importlib.util.find_spec("array_record") is None:
        raise DatasetUnavailable(
            f"dataset {name!r} needs the package array_record, which is not installed and exists for Linux and macOS "
            "alone: pip install array_record"
        )


def _foreign_builder(name: str, root: Path):
    """Returns TFDS's own builder, if it can be expected to work."""
    import tensorflow_datasets as tfds

    try:
        tfds.builder_cls(name.split("/")[0])
    except tfds.core.DatasetNotFoundError:
        raise DataError(f"dataset {name!r} is not known to tensorflow-datasets and is not prepared in {root}") from None
    if importlib.util.find_spec("tensorflow") is None:
        raise DatasetUnavailable(
            f"dataset {name!r} is not prepared in {root}, and only {', '.join(MNIST_FAMILY)} are prepared without "
            f"TensorFlow: prepare it once on a machine that has it, by tfds.builder({name!r}, "
            "file_format='array_record').download_and_prepare()"
        )
    builder = tfds.builder(name, data_dir=str(root))
    for url in list(builder.url_infos)[:1]:
        _probe(name, url, root / "downloads")
    return builder


def decode(name: str, folder: Path) -> Dataset:
    """Returns a prepared data set as arrays.

    Args:
      name: what to call it.
      folder: a TFDS folder of one version, in the array_record format.

    Raises:
      DatasetUnavailable: array_record is missing.
      DataError: the images are of varying size or not uint8, the labels no class labels, a split is missing, or
        a file is damaged.
    """
    _check_array_record(name)
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(str(folder))
        splits = {key: info.num_examples for key, info in builder.info.splits.items()}
        keys = builder.info.supervised_keys or ("image", "label")
        image_feature, label_feature = (builder.info.features[key] for key in keys[:2])
        file_format = builder.info.file_format
    except Exception as error:  # TFDS reads JSON and protobuf here, which fail in many ways
        raise DataError(f"the TFDS description in {folder} cannot be read: {error!r}") from error
    if not isinstance(label_feature, tfds.features.ClassLabel):
        raise DataError(f"dataset {name!r} has no integer class label, but {label_feature!r}")
    if image_feature.shape is None or None in image_feature.shape or image_feature.np_dtype != np.uint8:
        raise DataError(f"dataset {name!r} has no uint8 images of one size, but {image_feature!r}")
    if "train" not in splits or "test" not in splits:
        raise DataError(f"dataset {name!r} has the splits {sorted(splits)}; 'train' and 'test' are needed")
    if file_format != tfds.core.file_adapters.FileFormat.ARRAY_RECORD:
        raise DataError(
            f"{folder} holds {file_format.value} files, which need TensorFlow to be read: choose another data_dir, or "
            "prepare it again with file_format='array_record'"
        )
    read = functools.partial(
        _decode_split, builder, keys=keys, shape=image_feature.shape, num_classes=label_feature.num_classes
    )
    train = read("train")
    if "validation" in splits:
        validation = read("validation")
    else:
        train, validation = split_train(*train)
    return Dataset(name, tuple(label_feature.names), train, validation, read("test"))


def _decode_split(builder, split: str, *, keys, shape, num_classes: int) -> Split:
    """Returns one split, decoded with pillow: six times faster here than one example after another in TFDS."""
    import tensorflow_datasets as tfds
    from PIL import Image
    from rich.console import Console
    from rich.progress import track

    folder = builder.data_path
    skip = {keys[0]: tfds.decode.SkipDecoding()}
    try:
        source = builder.as_data_source(split=split, decoders=skip)
        num_images = len(source)
        images = np.empty((num_images, *shape), np.uint8)
        labels = np.empty(num_images, np.int32)
        block = 1000
        console = Console(stderr=True)
        title = f"decoding {builder.name} {split}"
        for start in track(range(0, num_images, block), title, transient=True, console=console):
            rows = range(start, min(start + block, num_images))
            for row, example in zip(rows, source.__getitems__(list(rows)), strict=True):
                image = np.asarray(Image.open(io.BytesIO(example[keys[0]])))
                if image.shape not in (shape, shape[:2] if shape[2] == 1 else shape):
                    raise ValueError(f"image {row} has the shape {image.shape}, not {shape}")
                images[row] = image.reshape(shape)
                labels[row] = example[keys[1]]
    except Exception as error:  # array_record and pillow report damage by many types
        files = ", ".join(sorted(path.name for path in Path(folder).glob(f"*-{split}.*")))
        raise DataError(f"{folder}: {files or split} is damaged or incomplete: {error}") from error
    if num_images != builder.info.splits[split].num_examples:
        raise DataError(f"{folder}: {split} has {num_images} examples, not as many as its description says")
    if labels.min(initial=0) < 0 or labels.max(initial=0) >= num_classes:
        raise DataError(f"{folder}: {split} has the label {labels.max()}, but there are {num_classes} classes")
    return Split(images, labels)


@functools.cache
def _checksums() -> dict[str, tuple[str, str, int]]:
    """Returns TFDS's record of the MNIST family: SHA-256 -> (data set, URL, bytes)."""
    import tensorflow_datasets as tfds

    record = Path(tfds.__file__).parent / "url_checksums"
    rows = {}
    for name in MNIST_FAMILY:
        for line in (record / f"{name}.txt").read_text().splitlines():
            url, size, digest, *_ = line.split("\t")
            rows[digest] = (name, url, int(size))
    return rows


def _obtain_files(name: str, downloads: Path) -> dict[str, Path]:
    """Returns the four official files by name, verified; those not in the manual folder are downloaded."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import checksums, download_manager

    official = {
        url.rsplit("/", 1)[1]: (digest, url, size)
        for digest, (owner, url, size) in _checksums().items()
        if owner == name
    }
    found = {}
    for file_name, (digest, _, _) in official.items():
        for place in (downloads / "manual" / name / file_name, downloads / "manual" / file_name):
            if not place.exists():
                continue
            actual = hashlib.sha256(place.read_bytes()).hexdigest()
            if actual == digest:
                found[file_name] = place
                break
            # The data sets of the family share their file names: another one's intact file is left alone.
            if _checksums().get(actual, (name,))[0] == name:
                raise DataError(f"{place} is not {name}'s official file: its SHA-256 is {actual}, not {digest}")
    missing = {file_name: url for file_name, (_, url, _) in official.items() if file_name not in found}
    if not missing:
        return found
    _probe(name, next(iter(missing.values())), downloads, sorted(missing))
    manager = download_manager.DownloadManager(
        download_dir=str(downloads),
        url_infos={
            url: checksums.UrlInfo(size=tfds.core.utils.Size(size), checksum=digest, filename=file_name)
            for file_name, (digest, url, size) in official.items()
        },
        dataset_name=name,
    )
    try:
        return found | {key: Path(path) for key, path in manager.download(missing).items()}
    except download_manager.NonMatchingChecksumError as error:
        raise DataError(f"dataset {name!r}: a download has a wrong checksum: {checks.reason(error)}") from None
    except OSError as error:
        raise DatasetUnavailable(f"dataset {name!r} could not be downloaded: {error}") from None


def _probe(name: str, url: str, downloads: Path, missing: Sequence[str] = ()) -> None:
    """Raises within seconds if the host of a download is out of reach; TFDS itself retries for minutes."""
    # Where a proxy is set, the download goes to it, and the host's own name need not be known here.
    address = urllib.parse.urlsplit(url)
    if not urllib.request.proxy_bypass(address.hostname or ""):
        address = urllib.parse.urlsplit(urllib.request.getproxies().get(address.scheme, url))
    problem = _unreachable(address.hostname, address.port or {"http": 80, "https": 443}.get(address.scheme, 443))
    if problem is not None:
        files = f" ({', '.join(missing)})" if missing else ""
        raise DatasetUnavailable(
            f"dataset {name!r} is not prepared in {downloads.parent} and {address.hostname} is out of reach "
            f"({problem}); name a prepared folder by the variable TFDS_DATA_DIR, or put the files it is made from"
            f"{files} into {downloads / 'manual'}"
        )


def _unreachable(host: str | None, port: int) -> str | None:
    """Returns why a host cannot be reached, or None if it can, within `PROBE_TIMEOUT_S`."""
    answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def connect():
        try:
            socket.create_connection((host, port), timeout=PROBE_TIMEOUT_S).close()
            answers.put(None)
        except OSError as error:
            answers.put(str(error))

    # By itself, a host of many addresses would be given that time for each, and a name server any time.
    threading.Thread(target=connect, daemon=True).start()
    try:
        return answers.get(timeout=PROBE_TIMEOUT_S)
    except queue.Empty:
        return f"no answer within {PROBE_TIMEOUT_S:g} s"


def _builder_class(name: str):
    """Returns a TFDS builder for one of the MNIST family that needs no TensorFlow."""
    import tensorflow_datasets as tfds
    from PIL import Image
    from tensorflow_datasets.image_classification import mnist

    original = getattr(mnist, MNIST_FAMILY[name])
    with tfds.core.registered.skip_registration():

        class Builder(original):  # type: ignore[misc, valid-type]
            pkg_dir_path = None

            def __init__(self, *, files, **kwargs):
                self._files = files
                super().__init__(**kwargs)

            def _split_generators(self, dl_manager):
                return {split: self._generate_examples(*pair) for split, pair in FILE_NAMES.items()}

            def _generate_examples(self, images_file, labels_file):
                images = read_idx(self._files[images_file], num_dims=3)
                labels = read_idx(self._files[labels_file], num_dims=1)
                if len(images) != len(labels):
                    raise DataError(f"{images_file} has {len(images)} images, {labels_file} {len(labels)} labels")
                for index, (image, label) in enumerate(zip(images, labels, strict=True)):
                    png = io.BytesIO()
                    Image.fromarray(image).save(png, format="png")
                    png.seek(0)
                    yield index, {"image": png, "label": int(label)}

    Builder.name = name
    return Builder


def read_idx(path: str | os.PathLike, num_dims: int) -> np.ndarray:
    """Returns a gzipped idx file of bytes as a uint8 array (format: the MNIST database's page).

    Args:
      path: the file.
      num_dims: 3 for images `[N, H, W]`, 1 for labels `[N]`.

    Raises:
      DataError: the file is damaged, truncated, or not of that kind.
    """
    try:
        with gzip.open(path, "rb") as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged: {error}") from None
    num_header = 4 * (1 + num_dims)
    header = np.frombuffer(content[:num_header], ">u4")
    if len(header) != 1 + num_dims or header[0] != IDX_MAGIC[num_dims]:
        raise DataError(f"{path} is not an idx file of {num_dims} dimensions")
    shape = tuple(int(size) for size in header[1:])
    if len(content) - num_header != int(np.prod(shape)):
        raise DataError(f"{path} is truncated: {len(content) - num_header} bytes of data, not {shape}")
    return np.frombuffer(content, np.uint8, offset=num_header).reshape(shape)
