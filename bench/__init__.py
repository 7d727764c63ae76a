"""How fast it is: `python -m bench` (or `make bench`) times what a study spends its time on, and writes the ratios to
results/bench/. It imports `scaling/`; nothing imports it.

| room | holds |
|---|---|
| `timing.py` | groups of variants, timed in turn; what a row is |
| `memory.py` | how much memory a variant takes |
| `training.py` | training steps to be timed: ours, and the usual ones |
| `peers.py` | the model written the usual way, and torchao's quantized linear layers in it |
| `throughput.py` | rows: tokens and FLOPs a second by size and stack, against the usual way and the matmuls alone |
| `steps.py` | rows: a training step in each precision, and the same step written the usual way |
| `ptq.py` | rows: quantizing and evaluating a trained model, as a share of its training |
| `report.py` | the machine, `bench.json` and `bench.md` |

Rows to add are a generator of `Group`s in a module of their own and a line in `__main__.py`.
"""
