"""One module a figure, named by what it shows. Each has `draw(frame, fits) -> Drawn`; `registry` lists them.

`draw` raises InputError with one line when the table has nothing for it to show.
"""
