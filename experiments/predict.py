"""Classifies your own pictures of digits with the model that experiments/train_cnn.py saved in a folder.

Pictures may have any size, in colour or grey, dark on light or light on dark, on blank, ruled or graph paper, with one
digit each or several in a row. Draws what the network saw, with its probabilities.
"""

import dataclasses
from pathlib import Path
from typing import Annotated

import common
import numpy as np
import tyro

import jaxmnist as jm


@dataclasses.dataclass(frozen=True)
class Options:
    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")] = Path("results/train_cnn")
    """Output folder of a finished experiments/train_cnn.py."""
    pictures: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="PICTURE...")] = ()
    """The pictures: PNG, JPEG, WebP, GIF, BMP, TIFF and the like, or HEIC with the extra `heic`."""
    output: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("results/predictions.png")
    """File of the figure; the figure of an earlier call is replaced."""
    overwrite: bool = False
    """Replace the file even if it is not such a figure."""


def main() -> None:
    options = common.parse(Options, __doc__)
    with common.usage_errors():
        if not options.pictures:
            raise ValueError("no pictures are given; name at least one file")
        check_output(options.output)
        written = [options.output, options.output.with_suffix(".svg")]
        common.claim_files(written, options.overwrite, "give --overwrite to replace it, or another --output")
        classifier = jm.load_model(options.folder)
        if classifier.input_shape != (28, 28, 1):
            raise ValueError(f"the model in {options.folder} takes images of {classifier.input_shape}, not (28, 28, 1)")
        rows = [jm.read_digits(picture) for picture in options.pictures]
        common.make_output_dir(options.output.parent)
    images = np.concatenate(rows)
    probabilities = classifier(images)
    names = [
        (picture, f", digit {place + 1} of {len(row)}" if len(row) > 1 else "")
        for picture, row in zip(options.pictures, rows, strict=True)
        for place in range(len(row))
    ]
    for (picture, place), shares in zip(names, probabilities, strict=True):
        first, second = shares.argsort()[:-3:-1]
        print(
            f"{picture}{place}: {classifier.class_names[first]}, probability {shares[first]:.3f} "
            f"(then {classifier.class_names[second]}, {shares[second]:.3f})"
        )
    titles = [f"{picture.name}{place}" for picture, place in names]
    figure = jm.predictions(images, probabilities, classifier.class_names, titles)
    common.save_figure(figure, options.output)
    print(f"wrote {options.output}")


def check_output(path: Path) -> None:
    """Raises ValueError if no figure can be written to this path."""
    from matplotlib.backend_bases import FigureCanvasBase

    formats = sorted(FigureCanvasBase.get_supported_filetypes())
    if path.suffix[1:].lower() not in formats:
        raise ValueError(f"output is {path}; its name must end with one of .{', .'.join(formats)}")
    if path.is_dir():
        raise ValueError(f"output is {path}, which is a folder; a file is needed")


if __name__ == "__main__":
    common.main(main)
