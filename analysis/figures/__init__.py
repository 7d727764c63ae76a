"""One module a figure, named by what it shows. Each has `draw(frame, fits) -> Drawn`.

`draw` raises InputError with one line when the table has nothing for it to show.
"""

from collections.abc import Callable

from analysis.figures import degradation, weight_precision
from analysis.style import Drawn

FIGURES: dict[str, Callable[..., Drawn]] = {
    "degradation": degradation.draw,
    "weight_precision": weight_precision.draw,
}
