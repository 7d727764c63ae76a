"""One module a figure, named by what it shows: `data(frame, fits)` makes its numbers, which raises InputError with one
line when the table has nothing for it to show, and `draw(data)` shows them. `registry` lists them.
`after_training/` is about quantization after training, `in_training/` about training in low precision, `best_model/`
about what to choose.
"""
