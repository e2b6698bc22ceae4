"""Shows the interactive page of a sweep while it runs, in the browser of this machine (needs the extra page).

The page is that of `jm.interactive`, and is made again as results arrive; end the program with Ctrl-C.
"""

import dataclasses
from pathlib import Path
from typing import Annotated

import common
import tyro

from jaxmnist.studies import watch


@dataclasses.dataclass(frozen=True)
class Options:
    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")] = Path("results/sweep_grid")
    """Output folder of the sweep."""
    port: Annotated[int, tyro.conf.arg(metavar="INT")] = 8000
    """Port on 127.0.0.1, which no other machine can reach."""


def main() -> None:
    options = common.parse(Options, __doc__)
    with common.usage_errors():
        if not options.folder.is_dir():
            raise ValueError(f"{options.folder} is not a folder; give the output folder of a sweep")
        if not 0 <= options.port <= 65535:
            raise ValueError(f"port is {options.port}; a whole number from 0 to 65535 is needed")
        try:
            server = watch.make_server(options.folder, options.port)
        except OSError as error:
            raise ValueError(f"port {options.port} cannot be used: {error.strerror}") from None
    print(f"open http://{watch.ADDRESS}:{server.server_address[1]}; Ctrl-C ends this", flush=True)
    with server:
        server.serve_forever()


if __name__ == "__main__":
    common.main(main)
