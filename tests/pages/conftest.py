"""Pages as people see them, in headless Chromium at the widths of a laptop and of a telephone: `make test-pages`."""

from pathlib import Path

import pytest

from tests.pages import chromium


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.pages)


@pytest.fixture(scope="session", autouse=True)
def browser():
    if chromium.browser() is None:
        pytest.skip(f"no browser on the path: one of {', '.join(chromium.NAMES)} (Debian: apt install chromium)")
