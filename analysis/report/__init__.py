"""The report of the project: every claim with its rule, our number and a verdict, from the committed tables alone.

`evidence/` reads results/<study>/runs.csv, measures, and has the rules that verdicts follow (`evidence.rules`);
`claims/` has a module a topic, and each claim in it its own rule; `document/` writes Markdown and one HTML file;
`build` runs all of it. `python -m analysis report --help`.
"""
