"""Pictures from strangers: none takes the memory, starts a program, or is read from elsewhere."""

import os
import struct
import subprocess
import zlib
from pathlib import Path

import pytest
from PIL import Image, ImageFile
from test_untrusted_files import assert_refused

import jaxmnist as jm


def png(width, height):
    """Returns a PNG file that declares a size and holds next to nothing."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(60_000, 60_000), (2**31 - 1, 1), (1, 2**31 - 1), (7_100, 7_100)])
def test_a_picture_that_declares_too_many_pixels_is_not_decoded(tmp_path, monkeypatch, size):
    (tmp_path / "bomb.png").write_bytes(png(*size))
    monkeypatch.setattr(ImageFile.ImageFile, "load_prepare", lambda self: pytest.fail("decoded"))
    assert_refused(lambda: jm.read_digit(tmp_path / "bomb.png"), "bomb.png", "pixels", "50000000 are allowed")


def test_a_picture_starts_no_other_program(tmp_path, monkeypatch):
    Image.new("L", (40, 40)).save(tmp_path / "x.eps")
    (tmp_path / "x.png").write_bytes((tmp_path / "x.eps").read_bytes())
    monkeypatch.setattr(subprocess, "check_call", lambda *args, **kwargs: pytest.fail("started"))
    for name in ("x.eps", "x.png"):
        assert_refused(lambda name=name: jm.read_digit(tmp_path / name), name, "no picture that can be read")


def test_a_pipe_and_a_folder_are_no_pictures(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", tmp_path, Path("/dev/zero")):
        assert_refused(lambda path=path: jm.read_digit(path), "is no file")
