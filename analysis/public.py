"""Public tables of runs, fetched for a check of the fits: `python -m analysis.public NAME [--out FOLDER]`.

None of them is shipped with this project. A table is downloaded from the repository of its authors at a pinned commit,
turned into the tidy table and written as NAME.csv. What is checked of it:

- `sha256`, of the file as it is served. It is None where no copy of that very file could be hashed beforehand; the
  program then prints the digest that it got and says that it was not checked.
- `values`, of what the fits rest on (N, D, loss, scheme of every row, in any order) after the conversion. It was
  computed from the tables that the published fits were verified on (`tests/analysis/test_published_results.py`), so a
  file whose numbers differ is refused even where its bytes are unknown.

Only the standard library is used here.
"""

import argparse
import csv
import dataclasses
import hashlib
import http.client
import io
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from analysis.errors import InputError
from analysis.files import replacing

PROG = "python -m analysis.public"
HOST = "https://raw.githubusercontent.com"
SECONDS = 30.0  # without a byte, before giving up
LARGEST = 64 * 2**20  # bytes of a file, several times those of any table here
CHECKED = ("N", "D", "loss", "scheme")  # the columns that `values` covers, where a table has them
FP4_BITS = 4  # e2m1, which QuEST's records call 16 bits
OUTLIERS = 5  # points with the fewest tokens a parameter, which Besiroglu et al. leave out of their fit

Row = dict[str, object]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Where a table comes from. `commit` is what the host resolves, abbreviated where the whole of it is not known."""

    name: str
    repository: str
    commit: str
    path: str
    licence: str
    rows: int
    sha256: str | None
    values: str | None
    convert: Callable[[bytes], list[Row]]

    @property
    def url(self) -> str:
        return f"{HOST}/{self.repository}/{self.commit}/{self.path}"


def chinchilla(content: bytes) -> list[Row]:
    """The points traced from Fig. 4 of Hoffmann et al. 2022: columns `Model Size`, `Training FLOP`, `loss` of a CSV.

    D = C / 6N tokens. N counts all parameters. `used_in_epoch_fit`: Besiroglu et al. 2024 (arXiv 2404.10102) leave out
    the five points with the fewest tokens a parameter, which are also those with the highest losses.
    """
    rows: list[Row] = []
    for given in csv.DictReader(io.StringIO(content.decode("utf-8"))):
        size, flop = float(given["Model Size"]), float(given["Training FLOP"])
        tokens = flop / (6.0 * size)
        rows.append({"N": size, "D": tokens, "C": flop, "loss": float(given["loss"]), "used_in_epoch_fit": True})
    for row in sorted(rows, key=lambda row: row["D"] / row["N"])[:OUTLIERS]:
        row["used_in_epoch_fit"] = False
    return rows


def quest(content: bytes) -> list[Row]:
    """QuEST's runs on C4 (arXiv 2502.05003): a JSON list, one record a run, with its settings under `args`.

    N counts non-embedding parameters. `scheme` groups runs as the authors' own fit does: bits, or fp4, or 48 (4 of 8
    weights kept), with NOH for no Hadamard transform and WO for weights only. `estimator` is the name of the quantizer.
    """
    return [_quest_row(run) for run in json.loads(content)]


def _quest_row(run: dict) -> Row:
    weights, activations, settings = run["w_quant"], run["a_quant"], run["args"]
    fp4 = "FP4" in weights
    return {
        "N": int(run["non_embedding_parameters"]),
        "D": int(run["tokens"]),
        "P_w": FP4_BITS if fp4 else run["w_bits"],
        "P_a": FP4_BITS if "FP4" in activations else run["a_bits"],
        "loss": float(run["loss"]),
        "scheme": _quest_scheme(weights, activations, run["w_bits"]),
        "estimator": weights,
        "corpus": settings["dataset"],
        "lr_peak": settings["lr"],
        "n_layers": settings["n_layer"],
        "d_model": settings["n_embd"],
        "seed_init": settings["seed"],
    }


def _quest_scheme(weights: str, activations: str, bits: int) -> str:
    if weights == activations == "NoQuantizer":
        return "16"
    if "FP4" in weights:
        return "fp4"
    if "FourEight" in weights:
        return "48"
    if activations == "NoQuantizer":
        return f"{bits}WO"
    return str(bits) if "Hadamard" in weights else f"{bits}NOH"


SOURCES = {
    source.name: source
    for source in (
        Source(
            name="chinchilla",
            repository="epoch-research/analyzing-chinchilla",
            commit="92258837425e1b5f2851d624287f0120583a3d0e",
            path="data/svg_extracted_data.csv",
            licence="none stated",
            rows=245,
            sha256=None,
            values="2db2fa9f4df2f06ffa0db0e3f08ca10826cd221d14db39dc6df717efb4419f63",
            convert=chinchilla,
        ),
        Source(
            name="quest",
            repository="IST-DASLab/QuEST",
            commit="c295afd",
            path="for_plots/runs_for_scaling.json",
            licence="MIT",
            rows=104,
            sha256=None,
            values="89efc8a2d8d42881a209a5414f7b0a3d78fbc86eb135daa2f9f8a0e6ed49840e",
            convert=quest,
        ),
    )
}


def fetch(source: Source) -> tuple[list[Row], str]:
    """The rows of a table, and the sha256 of the file that they came in.

    Raises:
        InputError: it cannot be reached, or is not what was expected.
    """
    content = _download(source.url)
    found = hashlib.sha256(content).hexdigest()
    if source.sha256 not in (None, found):
        raise InputError(f"{source.url}: sha256 is {found}, expected {source.sha256}; nothing was written")
    try:
        rows = source.convert(content)
        values = digest(rows)
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError, csv.Error) as fault:
        reason = " ".join(f"{type(fault).__name__} {fault}".split())
        raise InputError(f"{source.url}: not in the expected format ({reason}); nothing was written") from None
    if len(rows) != source.rows:
        raise InputError(f"{source.url}: holds {len(rows)} runs, expected {source.rows}; nothing was written")
    if source.values not in (None, values):
        raise InputError(f"{source.url}: its values are not those that fits were verified on; nothing was written")
    return rows, found


def digest(rows: Sequence[Row]) -> str:
    """sha256 of the columns `CHECKED`, whatever the order of rows and of columns."""

    def text(value: object) -> str:
        return value if isinstance(value, str) else repr(float(value))

    lines = sorted(",".join(text(row[c]) for c in CHECKED if c in row) for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as answer:
            content = answer.read(LARGEST + 1)
            missing = answer.length  # bytes that were announced and did not come; None where no number was
    except urllib.error.HTTPError as fault:
        raise InputError(f"{url}: the host answers {fault.code} {fault.reason}; nothing was written") from None
    except urllib.error.URLError as fault:
        reason = " ".join(str(fault.reason).split())
        raise InputError(
            f"{url}: cannot be reached ({reason}); this needs a network connection, nothing was written"
        ) from None
    except (OSError, http.client.HTTPException) as fault:  # an answer has begun, or was none
        reason = " ".join(str(fault).split()) or type(fault).__name__
        raise InputError(f"{url}: the download broke off ({reason}); nothing was written, try again") from None
    if len(content) > LARGEST:
        raise InputError(f"{url}: more than {LARGEST >> 20} MiB, which is no table known here; nothing was written")
    if missing:
        raise InputError(f"{url}: the download broke off {missing} bytes too early; nothing was written, try again")
    return content


def write(path: Path, rows: Sequence[Row]) -> None:
    """`rows` as the CSV `path`, whole or not at all."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        lines = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        lines.writeheader()
        lines.writerows(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog=PROG, description="Download a public table of runs as a tidy table NAME.csv.")
    known = "; ".join(f"{s.name}: {s.rows} runs of {s.repository}, licence: {s.licence}" for s in SOURCES.values())
    parser.add_argument("name", metavar="NAME", help=known)
    parser.add_argument("--out", metavar="FOLDER", type=Path, default=Path("."), help="default: the current folder")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.name not in SOURCES:
            raise InputError(f"{chosen.name}: no such table; use one of {', '.join(SOURCES)}")
        source = SOURCES[chosen.name]
        rows, found = fetch(source)
        path = chosen.out / f"{source.name}.csv"
        write(path, rows)
    except InputError as fault:
        print(f"{PROG}: {fault}", file=sys.stderr)
        return 1
    file = "sha256 as expected" if source.sha256 else f"sha256 {found} not checked (none is known)"
    values = ", values as expected" if source.values else ""
    print(
        f"{path}: {len(rows)} rows from {source.repository} {source.path} at commit {source.commit}, "
        f"licence: {source.licence}; {file}{values}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
