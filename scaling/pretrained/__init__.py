"""Models that others trained, measured as those of this program are, into the same table.

`presets` makes runs of a series and its revisions; `files` finds their files, on the hub or here; `loading` makes a
model of these; `linears` finds in its module tree what can be quantized; `inference` computes losses, with activations
and KV cache (`attention`) in other formats; `calibration` measures what enters the matrices; `quantize` puts quantized
matrices in their place; `measure` makes records of it all, one checkpoint after the other; `plan` says what it takes.
"""
