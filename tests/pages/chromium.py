"""Pages as headless Chromium lays them out: no driver and no package is needed, a browser on the path is enough.

A server on this machine serves a folder of pages, and beside them a page that measures each in a frame of the asked
width (a headless window itself cannot be narrower than 500 pixels). The browser prints that page when it is done.
"""

import contextlib
import html
import http.server
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MEASURE = Path(__file__).with_name("measure.html")
PATIENCE = 300  # seconds for all pages of a call
BUDGET = 100_000  # milliseconds of the page's own clock, which stands still while anything loads


def browser() -> str | None:
    """The path of the browser, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def measure(folder: Path, pages: Sequence[str], widths: Sequence[int]) -> list[dict]:
    """Each of `pages` (paths below `folder`, with #place if one is asked for) at each of `widths` in pixels: which
    elements are `wide`r than the window, which texts are `clipped`, its `pictures` with their texts, what it loads from
    `outside`, and whether the #place is `opened`."""
    frames = [{"page": f"/{page}", "width": width} for page in pages for width in widths]
    with served(folder, MEASURE.read_text().replace("FRAMES", json.dumps(frames), 2)) as address:
        made = printed(address)
    found = re.search(r'<pre id="result">(.*?)</pre>', made, re.S)
    return json.loads(html.unescape(found[1]))


@contextlib.contextmanager
def served(folder: Path, measuring: str) -> Iterator[str]:
    """The address of the measuring page, while `folder` is served beside it."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args, **more):
            super().__init__(*args, directory=folder, **more)

        def do_GET(self):
            if self.path != "/measure":
                return super().do_GET()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(measuring.encode())

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


def printed(address: str) -> str:
    """The page as it is when its scripts are done."""
    with tempfile.TemporaryDirectory() as profile:
        command = [browser(), "--headless", "--disable-gpu", f"--user-data-dir={profile}", "--window-size=1400,900"]
        command += ["--no-sandbox"] if os.geteuid() == 0 else []
        command += [
            "--no-first-run",
            "--disable-extensions",
            "--disable-background-networking",
            "--disable-dev-shm-usage",
        ]
        command += [f"--virtual-time-budget={BUDGET}", "--dump-dom", address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return done.stdout
