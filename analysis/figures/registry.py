"""All figures of a study, in the order in which they are drawn."""

from collections.abc import Callable

from analysis.figures.after_training import (
    degradation,
    during_and_after,
    effective_size,
    gap_heatmap,
    local_slopes,
    memory,
    predicted_gap,
    quantizers,
    schedules,
)
from analysis.figures.best_model import inference_optimum, isoloss, matched, optimal_precision
from analysis.figures.in_training import (
    capacity,
    float_formats,
    granularity,
    learning_rates,
    part_sweeps,
    predicted_loss,
    weight_precision,
)
from analysis.figures.style import Drawn

FIGURES: dict[str, Callable[..., Drawn]] = {
    "degradation": degradation.draw,
    "weight_precision": weight_precision.draw,
    "capacity": capacity.draw,
    "isoloss": isoloss.draw,
    "predicted_loss": predicted_loss.draw,
    "predicted_gap": predicted_gap.draw,
    "local_slopes": local_slopes.draw,
    "gap_heatmap": gap_heatmap.draw,
    "effective_size": effective_size.draw,
    "quantizers": quantizers.draw,
    "schedules": schedules.draw,
    "learning_rates": learning_rates.draw,
    "memory": memory.draw,
    "granularity": granularity.draw,
    "part_sweeps": part_sweeps.draw,
    "during_and_after": during_and_after.draw,
    "matched": matched.draw,
    "optimal_precision": optimal_precision.draw,
    "inference_optimum": inference_optimum.draw,
    "float_formats": float_formats.draw,
}
