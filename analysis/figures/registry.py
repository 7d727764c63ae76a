"""All figures of a study, in the order in which they are drawn."""

from analysis.figures.after_training import (
    degradation,
    during_and_after,
    effective_size,
    gap_heatmap,
    local_slopes,
    memory,
    predicted_gap,
    published_laws,
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
from analysis.figures.style import Plot

IN_ORDER = (
    *(degradation, weight_precision, capacity, isoloss, predicted_loss, predicted_gap, local_slopes, gap_heatmap),
    *(effective_size, quantizers, schedules, learning_rates, memory, granularity, part_sweeps, during_and_after),
    *(matched, optimal_precision, inference_optimum, float_formats, published_laws),
)
FIGURES = {m.__name__.rpartition(".")[2]: Plot(m.data, m.draw) for m in IN_ORDER}
"""By name: that of its module."""
