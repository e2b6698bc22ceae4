"""What a search saves in its folder: what it is, and the settings of each round before they are trained.

The folder holds `search.json`, in the end the result of all rounds, and a folder for each round: `settings.json`, and
what a sweep saves. Every file is written atomically, and reading one executes nothing.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxmnist.checks import is_number, is_whole
from jaxmnist.host.files import (
    FORMAT,
    check_folder,
    check_format,
    check_ours,
    is_ours,
    read_json,
    remove_temporary_files,
    write_text,
)
from jaxmnist.sweeps.fingerprint import raise_if_different
from jaxmnist.sweeps.folder import Held, SweepFolder, is_begun
from jaxmnist.sweeps.samplers import Draw
from jaxmnist.values import described

FILE_NAME, SETTINGS_NAME = "search.json", "settings.json"
ROUND, ROUND_PATTERN = "round_{:04d}", "round_" + "[0-9]" * 4


class Asked(NamedTuple):
    """The settings of a round.

    Attributes:
      draws: what the sampler has drawn.
      settings: what is trained for each of them, names to values.
    """

    draws: list[Draw]
    settings: list[dict[str, Any]]


class SearchFolder:
    """The folder of one search.

    Attributes:
      folder: where the result of all rounds is saved.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def round(self, number: int) -> Path:
        """Returns the folder of a round, counted from 0."""
        return self.folder / ROUND.format(number + 1)

    def check(self, num_rounds: int) -> None:
        """Raises ValueError if something that this package did not write has a name that the search needs."""
        if is_begun(self.folder):
            raise ValueError(f"{self.folder} holds a sweep that was interrupted: choose another folder")
        SweepFolder(self.folder).check()
        check_ours(self.folder / FILE_NAME)
        for number in range(num_rounds):
            check_folder(self.round(number))
            SweepFolder(self.round(number)).check()
            check_ours(self.round(number) / SETTINGS_NAME)

    def held(self) -> Held | None:
        """Returns the result in the folder, if there is one."""
        return SweepFolder(self.folder).held()

    def begin(self, description: Mapping[str, Any]) -> None:
        """Saves what a search is, unless that is there already.

        Raises:
          ValueError: the folder holds another search, or a result of something else, or cannot be read.
        """
        path = self.folder / FILE_NAME
        has_begun = path.is_file()
        if has_begun:
            try:
                saved = read_json(path)
                check_format(saved.pop("format", FORMAT), path)
            except (OSError, ValueError) as error:
                raise ValueError(f"the search in {self.folder} cannot be read: {error}") from None
            raise_if_different(f"the search in {self.folder}", saved, description)
        held = self.held()
        if held is not None and held.description.get("search") != json.dumps(description):
            raise ValueError(f"{self.folder} holds the result of another sweep: choose another folder")
        if not has_begun:
            # Those of a search whose files somebody has removed in part.
            for settings in filter(is_ours, self.folder.glob(f"{ROUND_PATTERN}/{SETTINGS_NAME}")):
                settings.unlink()
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_temporary_files(self.folder)
            write_text(path, json.dumps({"format": FORMAT, **description}, indent=2) + "\n")

    def asked(self, settings_of: Callable[[Sequence[Draw]], list[dict[str, Any]]]) -> list[Asked]:
        """Returns the settings of the rounds that have begun.

        Args:
          settings_of: returns what is trained for what was drawn.

        Raises:
          ValueError: they cannot be read, or something else would be trained now.
        """
        rounds: list[Asked] = []
        while (path := self.round(len(rounds)) / SETTINGS_NAME).is_file():
            try:
                saved = read_json(path)
                check_format(saved["format"], path)
                draws = _rows(saved["points"], saved["numbers"])
                settings = settings_of(draws)
                strings = _columns([_described(setting) for setting in settings])
            except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
                raise ValueError(f"the settings in {path} cannot be read: {error!r}") from None
            if strings != saved.get("settings"):
                raise ValueError(
                    f"the search in {self.folder} is another one: its settings are not those that constrain returns now"
                )
            rounds.append(Asked(draws, settings))
        return rounds

    def begin_round(self, number: int, asked: Asked) -> None:
        """Saves the settings of a round before they are trained."""
        self.round(number).mkdir(parents=True, exist_ok=True)
        content = {
            "format": FORMAT,
            "numbers": [draw.number for draw in asked.draws],
            "points": _columns([draw.point for draw in asked.draws]),
            "settings": _columns([_described(setting) for setting in asked.settings]),
        }
        write_text(self.round(number) / SETTINGS_NAME, json.dumps(content) + "\n")


def _described(setting: Mapping[str, Any]) -> dict[str, str]:
    return {name: described(value) for name, value in setting.items()}


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def _rows(points: Mapping[str, list], numbers: list) -> list[Draw]:
    """Returns draws from the columns of a file, which a stranger may have written."""
    rows = list(zip(*points.values(), strict=True))
    if not rows or not all(is_number(value) for row in rows for value in row):
        raise ValueError("a point is not made of numbers")
    if not all(is_whole(number) and number >= 0 for number in numbers):
        raise ValueError("a number of a setting is not a whole number from 0 on")
    return [Draw(dict(zip(points, row, strict=True)), number) for row, number in zip(rows, numbers, strict=True)]
