"""Section `tests`: those that need a card (tests/cuda), a line each with its outcome and its seconds.

Tests that passed before at the same commit are not run again."""

import os
import time
from typing import Any

import pytest

from bench.gpu.results import Results
from scaling.records import provenance

FOLDER = "tests/cuda"


def run(results: Results, end: float, device: str, *, tiny: bool) -> int:
    """Run until `end` on the monotonic clock. Exit status: 0 where every test that was run passed, 1 where one failed,
    3 where time ran out first."""
    os.environ["CARD"] = device  # tests/cuda/conftest.py
    recorder = _Recorder(results, end)
    chosen = ["-k", "format"] if tiny else []
    return int(pytest.main([FOLDER, "-m", "cuda", "-p", "no:cacheprovider", *chosen], plugins=[recorder]))


class _Recorder:
    """A plugin of pytest."""

    def __init__(self, results: Results, end: float):
        self.results, self.end = results, end
        self.commit = provenance.commit()
        self.properties: list[tuple[str, Any]] = []

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        lines = self.results.lines("tests")
        passed = {line["test"] for line in lines if line["commit"] == self.commit and line["outcome"] == "passed"}
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in passed])
        items[:] = [item for item in items if item.nodeid not in passed]

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if time.monotonic() > self.end:
            pytest.exit("bench.gpu: no time is left for more tests", returncode=3)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        line = {"test": report.nodeid, "outcome": report.outcome, "seconds": round(report.duration, 3)}
        line |= {"commit": self.commit, **dict(report.user_properties)}
        if report.failed:
            line["message"] = str(report.longreprtext).strip().splitlines()[-30:]
        elif report.skipped:
            line["message"] = report.longrepr[-1] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        self.results.add("tests", line)
