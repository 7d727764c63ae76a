"""What accelerators could do at most: prices of studies and the share of it that a run reaches (MFU) are counted by
it."""

from typing import NamedTuple


class Device(NamedTuple):
    """An accelerator."""

    name: str
    peak: float
    """FLOPs a second of dense bf16 matmuls, by the vendor's data sheet."""


DEVICES = {
    "a100": Device("A100", 312e12),
    "h100": Device("H100", 989e12),
    "h200": Device("H200", 989e12),
    "b200": Device("B200", 2250e12),
}


def peak_of(device_name: str) -> float | None:
    """That of the accelerator whose name, as its driver says it, holds one of these; None where none does. Cards on a
    PCIe slot are slower than the modules whose data sheet this is."""
    if "PCIE" in device_name.upper():
        return None
    return next((device.peak for device in DEVICES.values() if device.name in device_name.upper()), None)
