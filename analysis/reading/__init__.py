"""A file of any kind in, a frame with line numbers out.

`content` gets the bytes, `text` and `workbooks` make frames of them, `names` and `columns` say which column is which,
`doubts` what in a table is probably not meant.
"""
