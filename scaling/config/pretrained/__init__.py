"""What may be said of models that others trained. `scaling.pretrained.presets` makes of a series, and of the revisions
that are asked for, a `MeasuredRun` for each checkpoint."""
