"""What may be asked of a plan: ranges of its budgets, and that these limit N and D.

Nothing heavy is imported here: `python -m analysis plan --help` tells the defaults.
"""

from analysis.errors import InputError

DRAWS = 500
FEWEST, MOST = 100, 100_000  # draws
LARGEST = 1e50  # of any budget: powers of larger numbers leave the range of floats
FULL = 16


def check(asked: dict, *, widths, post, group, fixed_bytes, draws, seed) -> None:
    """Raises InputError for values out of range, and for ceilings that leave N or D without a limit."""
    for name, value in asked.items():
        if value is not None and not 0 < value <= LARGEST:
            raise InputError(f"{name}={value:g}: expected a number above zero, at most {LARGEST:g}")
    if asked["tokens"] is not None and asked["tokens"] < 1:
        raise InputError(f"tokens={asked['tokens']:g}: expected at least one")
    if group is not None and not 1 <= group < float("inf"):
        raise InputError(f"group={group:g}: expected how many values share a scale, at least 1")
    if not 0 <= fixed_bytes < float("inf"):
        raise InputError(f"fixed_bytes={fixed_bytes:g}: expected bytes, at least zero")
    if asked["bytes"] is not None and fixed_bytes >= asked["bytes"]:
        raise InputError(f"fixed_bytes={fixed_bytes:g}: expected less than bytes={asked['bytes']:g}")
    if draws and not FEWEST <= draws <= MOST:
        raise InputError(f"draws={draws}: expected 0 (no intervals) or {FEWEST} to {MOST}")
    if seed < 0:
        raise InputError(f"seed={seed}: expected a number of 0 or above")
    for name, values in (("widths", widths), ("formats", post)):
        if values is not None and not len(values):
            raise InputError(f"{name}: expected at least one")
    for bits in widths or ():
        if not 1 <= bits <= FULL:
            raise InputError(f"widths={bits:g}: expected 1 to {FULL} bits")
    if asked["flops"] is None and asked["bytes"] is None:
        raise InputError("nothing limits N: expected flops, or bytes with tokens")
    if asked["flops"] is None and asked["serve_tokens"] is not None:
        raise InputError(f"serve_tokens={asked['serve_tokens']:g}: counts against flops; expected flops with it")
    if asked["flops"] is None and asked["tokens"] is None:
        raise InputError(f"bytes={asked['bytes']:g}: nothing limits D; expected flops or tokens with it")
