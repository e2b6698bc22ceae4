"""The interactive page of a sweep while it runs, shown by a server on this machine to this machine alone."""

import functools
import html
import http.server
import tempfile
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Any

from jaxmnist.analysis.files import FILE_NAME, load_results
from jaxmnist.plots.page import interactive

ADDRESS = "127.0.0.1"
SECONDS_PER_LOOK = 2
# A frame around the page, which is loaded again as results arrive, with its view in its address.
FRAME = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Watching %(folder)s</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>html, body, iframe { margin: 0; border: 0; width: 100%%; height: 100%%; } iframe { display: block; }</style>
</head><body><iframe title="Results of %(folder)s"></iframe><script>
const frame = document.querySelector("iframe");
let shown = null;
async function look() {
  const found = await (await fetch("/version")).text();
  if (found === shown) return;
  const { hash } = frame.contentWindow.location, { scrollY } = frame.contentWindow;
  frame.addEventListener("load", () => frame.contentWindow.scrollTo(0, scrollY), { once: true });
  frame.contentWindow.location.replace(`/page?${found}${shown === null ? "" : hash}`);
  shown = found;
}
look();
// Once the server has ended, the page stays as it is.
setInterval(() => look().catch(() => null), %(milliseconds)d);
</script></body></html>
"""
NOTHING = '<!doctype html><html lang="en"><meta charset="utf-8"><title>Nothing yet</title><p>%s</p></html>'


def make_server(folder: Path, port: int = 0) -> http.server.ThreadingHTTPServer:
    """Returns a server of the page of the result in a folder, which no other machine can reach.

    Args:
      folder: of a sweep, which may be running.
      port: of the server; 0 for a free one, which `server_address` tells.

    Raises:
      OSError: the port is in use.
    """

    frame = FRAME % {"folder": html.escape(str(folder)), "milliseconds": 1000 * SECONDS_PER_LOOK}
    answers = {"/": lambda: frame, "/page": lambda: page(folder), "/version": lambda: version(folder)}
    hosts: set[str] = set()
    server = http.server.ThreadingHTTPServer((ADDRESS, port), functools.partial(_Handler, answers, hosts))
    hosts |= {f"{name}:{server.server_address[1]}" for name in (ADDRESS, "localhost")}
    return server


def version(folder: Path) -> str:
    """Returns what changes when the result in a folder does."""
    path = folder / FILE_NAME
    return str(path.stat().st_mtime_ns) if path.is_file() else "none"


def page(folder: Path) -> str:
    """Returns the page of the result in a folder, or a page that says why it cannot be shown."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "page.html"
        try:
            interactive(load_results(folder), path)
        except ValueError as error:
            return NOTHING % html.escape(str(error))
        return path.read_text(encoding="utf-8")


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers those who ask for this machine by its own name: a name of another origin may lead here too."""

    def __init__(self, answers: Mapping[str, Callable[[], str]], hosts: Set[str], *connection: Any):
        self._answers, self._hosts = answers, hosts
        super().__init__(*connection)

    def do_GET(self) -> None:
        answer = self._answers.get(self.path.split("?")[0])
        if self.headers.get("Host") not in self._hosts or answer is None:
            self.send_error(404)
            return
        content = answer().encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Reports nothing of what is asked."""
