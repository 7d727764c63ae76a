"""How fast it is: `python -m bench` (or `make bench`) times what a study spends its time on, and writes the ratios to
results/bench/. It imports `scaling/`; nothing imports it.

| room | holds |
|---|---|
| `timing.py` | groups of variants, timed in turn; what a row is |
| `steps.py` | rows: a training step in each precision, and the same step written the usual way |
| `peers.py` | that model written the usual way, and torchao's quantized linear layers in it |
| `ptq.py` | rows: quantizing and evaluating a trained model, as a share of its training |
| `report.py` | the machine, `bench.json` and `bench.md` |

Rows to add are a generator of `Group`s in a module of their own and a line in `__main__.py`.
"""
