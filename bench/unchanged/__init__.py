"""Whether a refactor changed anything: `python -m bench.unchanged COMMIT` (or `make unchanged BASE=COMMIT`).

It runs the same commands on the code of COMMIT and on the working tree, on this machine with this environment, and
compares what they wrote. Both sides are driven through commands and files alone, because a refactor moves modules.

| module | contains |
|---|---|
| `workload.py` | the commands, and what each leaves behind |
| `sweeps/unchanged.yaml` | the small study that both sides train |
| `sides.py` | a checkout with its output folder; runs the commands, a few at a time |
| `compare.py` | which files are compared in which group, without what may differ, and how |

It is beside the benchmarks because no wheel contains them either, and because its modules can be imported, and so
tested, like all others.
"""
