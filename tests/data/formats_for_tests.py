"""Files of data sets, written in the formats that are read."""

import gzip

import numpy as np
import pytest

from jaxmnist.data import preparation

TFDS = pytest.importorskip("tensorflow_datasets")


def write_idx(path, array):
    header = np.array([preparation.IDX_MAGIC[array.ndim], *array.shape], ">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.tobytes(), mtime=0))


def write_tfds(folder, features, splits):
    """Writes a TFDS folder by a builder defined here; TFDS encodes PNG with TensorFlow, so the bytes are ours."""
    import io

    from PIL import Image

    def encoded(example):
        file = io.BytesIO()
        Image.fromarray(example["image"]).save(file, format="png")
        file.seek(0)
        return example | {"image": file}

    with TFDS.core.registered.skip_registration():

        class Pets(TFDS.core.GeneratorBasedBuilder):
            VERSION = TFDS.core.Version(folder.name)
            pkg_dir_path = None

            def _info(self):
                return TFDS.core.DatasetInfo(builder=self, features=features, supervised_keys=("image", "label"))

            def _split_generators(self, dl_manager):
                return {split: self._generate_examples(split) for split in splits}

            def _generate_examples(self, split):
                yield from enumerate(map(encoded, splits[split]))

    Pets(data_dir=str(folder.parents[1])).download_and_prepare(file_format="array_record")
