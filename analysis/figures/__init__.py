"""One module a figure, named by what it shows: `data(frame, fits)` makes its numbers, which raises InputError with one
line when the table has nothing for it to show, and `draw(data)` shows them. `registry` lists them.
"""
