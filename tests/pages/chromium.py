"""Pages as headless Chromium lays them out: no driver and no package is needed, a browser on the path is enough.

A server on this machine serves a folder of pages, and beside them a page that measures each in a frame of the asked
width (a headless window itself cannot be narrower than 500 pixels) and sends back what it found.
"""

import contextlib
import http.server
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MEASURE = Path(__file__).with_name("measure.html")
PATIENCE = 600  # seconds for all pages of a call
QUIET = ("--no-first-run", "--disable-extensions", "--disable-background-networking", "--disable-component-update")


def browser() -> str | None:
    """The path of the browser, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def measure(folder: Path, pages: Sequence[str], widths: Sequence[int]) -> list[dict]:
    """Each of `pages` (paths below `folder`, with #place if one is asked for) at each of `widths` in pixels: which
    elements are `wide`r than the window, which texts are `clipped`, its `pictures` with their texts, what it loads from
    `outside`, and whether the #place is `opened`.

    Raises:
        queue.Empty: the browser did not answer in time.
    """
    frames = [{"page": f"/{page}", "width": width} for page in pages for width in widths]
    measuring, answers = MEASURE.read_text().replace("= FRAMES", f"= {json.dumps(frames)}"), queue.Queue()
    with served(folder, measuring, answers) as address, opened(address):
        return answers.get(timeout=PATIENCE)


@contextlib.contextmanager
def served(folder: Path, measuring: str, answers: queue.Queue) -> Iterator[str]:
    """The address of the measuring page, while `folder` is served beside it; what it sends goes to `answers`."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args, **more):
            super().__init__(*args, directory=folder, **more)

        def do_GET(self):
            if self.path == "/measure":
                self._answer(measuring.encode(), "text/html; charset=utf-8")
            else:
                super().do_GET()

        def do_POST(self):
            sent = self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(b"", "text/plain")
            answers.put(json.loads(sent))

        def _answer(self, content, kind):
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/measure"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def opened(address: str) -> Iterator[None]:
    """A browser that shows the page."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [browser(), "--headless", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1400,900"]
        command += ["--remote-debugging-port=0", f"--user-data-dir={profile}", *QUIET]  # the port keeps it open
        command += ["--no-sandbox"] if os.geteuid() == 0 else []
        running = subprocess.Popen([*command, address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            running.terminate()
            running.wait(timeout=30)
