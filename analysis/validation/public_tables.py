"""Public tables of runs, for a check of the fits: `python -m analysis public NAME [--out FOLDER]` downloads them.

None of them is shipped with this project. A table is downloaded from the repository of its authors at a pinned commit,
turned into the tidy table and written as NAME.csv. What is checked of it:

- `sha256`, of the file as it is served. It is None where no copy of that very file could be hashed beforehand; the
  program then prints the digest that it got and says that it was not checked.
- `values`, of what the fits rest on (N, D, loss, scheme of every row, in any order) after the conversion. It was
  computed from the tables that the published fits were verified on (tests/analysis/fitting/test_published_results.py),
  so a file whose numbers differ is refused even where its bytes are unknown.

Only the standard library is used here.
"""

import csv
import dataclasses
import hashlib
import io
import json
from collections.abc import Callable, Sequence

HOST = "https://raw.githubusercontent.com"
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


def digest(rows: Sequence[Row]) -> str:
    """sha256 of the columns `CHECKED`, whatever the order of rows and of columns."""

    def text(value: object) -> str:
        return value if isinstance(value, str) else repr(float(value))

    lines = sorted(",".join(text(row[c]) for c in CHECKED if c in row) for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
