"""Clusters of Ray on this machine, whose nodes can be killed, and programs that use them."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
# The modules of the tests, and the package that is tested.
PATH = os.pathsep.join(map(str, (HERE.parent, HERE, HERE / "sweeps")))
MARK = "NODE_OF_A_TEST"


def free_port() -> int:
    """Returns a port of this machine that nothing uses."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def marked(mark: str) -> set[int]:
    """Returns the processes that have a mark in their environment, and those that these have started."""
    found, parents = set(), {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if f"{MARK}={mark}\0".encode() in (folder / "environ").read_bytes():
                found.add(int(folder.name))
    while more := {process for process, parent in parents.items() if parent in found} - found:
        found |= more
    return found


class LocalCluster:
    """A cluster, with a head that has no devices.

    Attributes:
      address: that of its head.
      environment: what its programs need to be let in.
    """

    def __init__(self, path: str):
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        # A token for this cluster alone: newer versions of Ray demand one, and else take it from a person's home.
        self._token = secrets.token_hex(32)
        letting_in = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self._token, "RAY_USAGE_STATS_ENABLED": "0"}
        # A folder of its own, since Ray leaves the address of the newest cluster in its folder.
        self._folder = tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True)
        self.environment = {**os.environ, **letting_in, "RAY_TMPDIR": self._folder.name}
        self._path, self._port, self._names = path, port, ["head"]

    def begin(self) -> None:
        """Starts the head."""
        port = f"--port={self._port}"
        self._start("head", "--head", port, "--num-cpus=0", "--num-gpus=0", "--include-dashboard=false")

    def add(self, name: str, cpus: int, gpus: int = 0) -> None:
        """Starts a node; GPUs need not be there."""
        self._names.append(name)
        self._start(name, f"--address={self.address}", f"--num-cpus={cpus}", f"--num-gpus={gpus}")

    def _start(self, name: str, *options: str) -> None:
        command = [str(Path(sys.executable).parent / "ray"), "start", *options, f"--node-name={name}"]
        environment = self.environment | {"PYTHONPATH": self._path, MARK: f"{self._token}-{name}"}
        subprocess.run(
            [*command, "--node-ip-address=127.0.0.1"], env=environment, cwd="/", check=True, timeout=120,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def kill(self, name: str) -> None:
        """Kills all processes of a node at once, as if its machine had lost its power."""
        for process in marked(f"{self._token}-{name}"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    @contextlib.contextmanager
    def driver(self, folder: Path, address: str = "") -> Iterator[subprocess.Popen]:
        """Starts `ray_driver.py` with a folder, on this cluster or another, and kills it at the end."""
        command = [sys.executable, str(HERE / "ray_driver.py"), address or self.address, str(folder)]
        environment = self.environment | {"PYTHONPATH": PATH}
        with subprocess.Popen(
            command, env=environment, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def stop(self) -> None:
        """Kills the nodes."""
        for name in self._names:
            self.kill(name)
        self._folder.cleanup()


@contextlib.contextmanager
def local_cluster(path: str = PATH) -> Iterator[LocalCluster]:
    """Yields a cluster without nodes but its head, and kills all of its processes at the end.

    Args:
      path: where its nodes look for modules.
    """
    cluster = LocalCluster(path)
    try:
        cluster.begin()
        yield cluster
    finally:
        cluster.stop()
