"""The report of the project: every claim with its rule, our number and a verdict, from the committed tables alone.

`tables` reads results/<study>/runs.csv, the modules `claims_*` measure, `rules` decides, `build` writes what came out
as Markdown and as one HTML file. `python -m analysis report --help`.
"""
