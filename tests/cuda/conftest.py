"""The card that the tests of this folder run on: `CARD=cuda`, or `CARD=cpu` for a tiny form without one.

    python -m pytest tests/cuda -m cuda -rs --durations=0

Unset, CARD is `cuda` where PyTorch sees a GPU, and else everything here is skipped. On a CPU both sides of most
comparisons are the same device: that form shows that the tests run, not that a card is right. With `CASES=first` each
test has its first case only.
"""

import os
from pathlib import Path

import pytest
import torch

# Read when the first handle of cuBLAS is made. Deterministic algorithms want it.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

ORDER = ("quantizers", "training", "ptq", "memory", "synchronizations", "processes", "compiled")
"""What says most comes first: time on a card may run out."""


@pytest.hookimpl(trylast=True)  # behind the choice of markers
def pytest_collection_modifyitems(config, items):
    here = [i for i, item in enumerate(items) if item.path.parent == Path(__file__).parent]
    ordered = sorted((items[i] for i in here), key=lambda item: ORDER.index(item.path.stem.removeprefix("test_")))
    for i, item in zip(here, ordered, strict=True):
        items[i] = item
    if os.environ.get("CASES") == "first":
        first = {}
        for item in items:
            first.setdefault((item.path, item.originalname), item)
        config.hook.pytest_deselected(items=[item for item in items if item not in first.values()])
        items[:] = first.values()


@pytest.fixture(scope="session")
def card():
    """The device under test. A card that was asked for and is not there is a failure, and no reason to skip."""
    wish = os.environ.get("CARD") or ("cuda" if torch.cuda.is_available() else "")
    if not wish:
        pytest.skip("no GPU here; CARD=cpu runs the tiny form of these tests")
    assert wish in ("cpu", "cuda"), f"CARD={wish}: use cuda or cpu"
    assert wish == "cpu" or torch.cuda.is_available(), "CARD=cuda: PyTorch sees no GPU"
    return torch.device(wish)


@pytest.fixture
def card_run(card, make_run):
    """card_run("precision=w4") -> Run: as `make_run`, on the card, in float32 unless it is said otherwise."""
    return lambda *overrides: make_run(f"runtime.device={card.type}", "runtime.dtype=float32", *overrides)


@pytest.fixture
def deterministic():
    """The switches that make a run repeat to the bit: by default the backward pass of fused attention may add in any
    order, that of FlashAttention as well as that of the kernels for float32."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def report(record_property):
    """report("name", value): a number that is wanted from a card, printed at the end and kept in a JUnit file."""
    return record_property


def pytest_terminal_summary(terminalreporter):
    outcomes = [r for kind in ("passed", "failed") for r in terminalreporter.stats.get(kind, ()) if r.when == "call"]
    found = [(r.nodeid.rpartition("/")[2], name, value) for r in outcomes for name, value in r.user_properties]
    if found:
        terminalreporter.section("numbers")
        for test, name, value in found:
            terminalreporter.line(f"{test}: {name}: {value}")
