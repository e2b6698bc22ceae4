"""Files as every system wants them."""

import fcntl
import os
from pathlib import Path

from jaxmnist.host import files


def test_only_a_file_that_may_be_written_is_forced_to_the_disk(tmp_path, monkeypatch):
    """Windows refuses others, by `OSError: [Errno 9] Bad file descriptor`."""
    forced = []

    def fsync(descriptor, force=os.fsync):
        forced.append(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE)
        force(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    files.write_text(tmp_path / "x.txt", "whole")
    files.write_arrays(tmp_path / "x.npz", {"x": 1})
    assert forced == [os.O_RDWR] * 2
    assert (tmp_path / "x.txt").read_text() == "whole"


def test_text_has_the_same_bytes_on_every_system(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "write_text", None)  # its line ends and its encoding are the system's
    files.write_text(tmp_path / "x.csv", "\u00b1\r\n")
    assert (tmp_path / "x.csv").read_bytes() == b"\xc2\xb1\r\n"
