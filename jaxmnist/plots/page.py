"""One interactive page per result: a file by itself, with the plotting library Bokeh within it, without network."""

import base64
import gzip
import hashlib
import html
import importlib.util
import json
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.colors import to_hex

from jaxmnist.analysis.arguments import BY, LARGEST, SETTINGS, WORDS, IsResult, with_one_seed
from jaxmnist.analysis.metrics import Metric, check_by, judged
from jaxmnist.checks import PATH, Where, checked_by
from jaxmnist.host.files import MARK, check_folder, check_ours, remove_temporary_files, write_text
from jaxmnist.plots import page_data, page_words
from jaxmnist.plots.style import COLORMAP

WEB = Path(__file__).parent / "web"
LIBRARY = ("bokeh.min.js", "bokeh-api.min.js")
SCRIPTS = ("data.js", "map.js", "curves.js", "parallel.js", "table.js", "address.js", "page.js")
HTML = Where("a path that ends in .html", lambda value: PATH.accepts(value) and Path(value).suffix == ".html")
# The largest code of a recorded value, and that of nan.
MAX_CODE, NO_VALUE = 65534, 65535
ALIGNMENT = 8


def library() -> Path | None:
    """Returns the folder of the scripts of Bokeh, or None if it is not installed. To import it would need a home."""
    found = importlib.util.find_spec("bokeh")
    return None if found is None else Path(str(found.origin)).parent / "server" / "static" / "js"


def _check_page(given: SimpleNamespace) -> None:
    if library() is None:
        raise ValueError("bokeh is not installed; install it by pip install 'jaxmnist[page]'")
    check_by(given)


@checked_by(
    _check_page, result=IsResult(SETTINGS, (*WORDS, "num_validation", "num_test"), one_seed=False), path=HTML, by=BY,
    largest=LARGEST,
)  # fmt: skip
def interactive(
    result: xr.Dataset, path: str | os.PathLike, *, by: str | None = None, largest: bool | None = None
) -> None:
    """Writes a page on which a result can be explored, as one HTML file that needs no network, atomically.

    The page has the map over any two hyperparameters, with a slider for each other one and for the budget; the curves
    of the runs of a setting; parallel coordinates, in which settings are selected; a table of the settings; the chosen
    setting with its intervals; and, if 3 hyperparameters or more differ in 8 settings or more and Optuna is installed
    (extra `search`), their importance. All numbers are those of `jm.settings`, `jm.ties`, `jm.best` and `jm.at_budget`.
    Importance is that of `jm.importance_table`, of at most 100 settings drawn at random, with fewer bootstrap samples.

    Args:
      result: of a sweep, a halving or a search.
      path: of the file; a page that is there is replaced, and the folder is created if it does not exist.
      by: the metric that settings are compared by, as for `jm.settings`.
      largest: whether its largest value is the best, as for `jm.settings`.

    Raises:
      ValueError: an argument is not as described above, no run of the result has ended, Bokeh is not installed, or the
        file was not written by jaxmnist.
      OSError: the file cannot be written.
    """
    path = Path(path)
    check_folder(path.parent)
    check_ours(path)
    text = page_text(result, judged(result, by, largest))
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_temporary_files(path.parent)
    write_text(path, text)


def page_text(result: xr.Dataset, metric: Metric) -> str:
    """Returns the HTML of the page of a result, given the metric that it is judged by."""
    contents, arrays = page_of(result, metric)
    folder = Path(str(library()))
    scripts = [(folder / name).read_text(encoding="utf-8").replace("</script", "<\\/script") for name in LIBRARY]
    scripts.append("".join((WEB / name).read_text(encoding="utf-8") for name in SCRIPTS))
    # Nothing is loaded, and nothing runs but these very scripts, whatever the texts of a result hold.
    digests = " ".join(f"'sha256-{_base64(hashlib.sha256(script.encode()).digest())}'" for script in scripts)
    parts = {
        "mark": MARK,
        "digests": digests,
        "title": html.escape(contents["title"]),
        "style": (WEB / "page.css").read_text(encoding="utf-8"),
        "data": _base64(packed(contents, arrays)),
        "scripts": "\n".join(f"<script>{script}</script>" for script in scripts),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], (WEB / "page.html").read_text(encoding="utf-8"))


def page_of(result: xr.Dataset, metric: Metric) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns what a page shows: words and a few numbers, which JSON can hold, and arrays by name."""
    seeds, result = page_words.seed_codes(result), with_one_seed(result)
    runs, num_recorded = page_data.runs_of(result, metric), result.sizes.get("step", 0)
    result = page_data.thinned(result, runs)
    axes, places = page_words.axes_of(result, runs.settings)
    frames = page_data.frames_of(result)
    arrays = _arrays(result, runs, sorted(seeds)) | {f"axis_{name}": place for name, place in places.items()}
    quantities = []
    for quantity in page_data.quantities_of(result, runs, metric):
        limits = page_data.limits_of(quantity, frames, arrays["size"], runs)
        quantities.append(quantity.words | {"limits": limits, "scales": {}})
        for name, values in quantity.arrays.items():
            array, scale = coded(values) if name.startswith("recorded_") else (values.astype(np.float32), None)
            arrays[f"{quantity.name}_{name}"], quantities[-1]["scales"][name] = array, scale
    chosen = page_words.chosen_rows(result, metric, runs.settings)
    contents = {
        "title": page_words.title(result),
        "subtitle": page_words.subtitle(result, len(runs.rows), len(runs.settings)),
        "axes": axes,
        "has_cells": page_words.has_cells(axes, len(runs.settings)),
        "standings": page_data.STANDINGS,
        "is_tested": bool(runs.settings["p_value"].notna().any()),
        "seeds": [seeds[number] for number in sorted(seeds)],
        "quantities": quantities,
        "frames": frames,
        "steps": result["step"].values.tolist() if frames else [],
        "num_recorded": num_recorded if frames else 0,
        "colors": [to_hex(color) for color in mpl.colormaps[COLORMAP](np.linspace(0, 1, 256))],
        "importance": page_words.importance_of(result, metric),
        # Each is a title and rows of two cells, the first one above the figures and the others below.
        "tables": [["Chosen setting", chosen], ["Data, model and versions", page_words.about_rows(result)]],
    }
    return contents, arrays


def _arrays(result: xr.Dataset, runs: page_data.Runs, seeds: list[int]) -> dict[str, np.ndarray]:
    """Returns what is known of each setting, `[S]`, and of each run, `[R]`, whatever metric is shown."""
    settings, rows = runs.settings, runs.rows
    arrays = {
        "num_seeds": settings["num_seeds"].to_numpy(np.uint32),
        "num_diverged": settings["num_diverged"].to_numpy(np.uint32),
        "standing": settings["standing"].map(page_data.STANDINGS.index).to_numpy(np.uint8),
        "first_run": np.searchsorted(runs.numbers, np.arange(len(settings) + 1)).astype(np.uint32),
        "seed": np.searchsorted(seeds, rows["seed"].to_numpy()).astype(np.uint32),
        "diverged_step": _steps(rows["diverged_step"]),
        "size": page_data.sizes_of(result, settings),
    }
    if "pruned_step" in settings:
        arrays["pruned_step"] = _steps(settings["pruned_step"])
    if page_data.recorded_names(result):
        arrays["recorded_diverged"] = page_data.diverged_by_step(result, runs)
    return arrays


def _steps(column: Any) -> np.ndarray:
    """Returns steps as int32, -1 for none."""
    return column.fillna(-1).to_numpy(np.int32)


def coded(values: np.ndarray) -> tuple[np.ndarray, list]:
    """Returns values as uint16 codes, and how to read them: the least and the largest value, and whether by logarithm.

    Codes are even steps between both ends, of the values or, where these are positive and span more than a factor of
    10, of their logarithms: 1 in 65,534 of that range. The code of nan is 65,535.
    """
    known = np.isfinite(values)
    if not known.any():
        return np.full(values.shape, NO_VALUE, np.uint16), [0.0, 0.0, False]
    is_log = bool(values[known].min() > 0 and values[known].max() > 10 * values[known].min())
    points = np.log(np.where(known, values, 1.0)) if is_log else np.where(known, values, 0.0)
    low, high = float(points[known].min()), float(points[known].max())
    codes = np.round((points - low) * (MAX_CODE / (high - low or 1.0)))
    return np.where(known, codes, NO_VALUE).astype(np.uint16), [low, high, is_log]


def packed(contents: dict[str, Any], arrays: dict[str, np.ndarray]) -> bytes:
    """Returns words and arrays as one compressed block: the length of the JSON, uint32, the JSON, and the arrays."""
    places, blocks, offset = {}, [], 0
    for name, array in arrays.items():
        block = array.astype(array.dtype.newbyteorder("<")).tobytes()
        block += bytes(-len(block) % ALIGNMENT)
        places[name] = {"type": array.dtype.name, "offset": offset, "length": array.size}
        blocks.append(block)
        offset += len(block)
    text = json.dumps(contents | {"arrays": places}, allow_nan=False).encode()
    text += b" " * (-(len(text) + 4) % ALIGNMENT)
    return gzip.compress(b"".join([len(text).to_bytes(4, "little"), text, *blocks]), compresslevel=6, mtime=0)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
