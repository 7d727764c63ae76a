"""What only a GPU can test, in one prepared command: tests, throughput, a study. See docs/gpu.md and bench/gpu.sh.

Time on a GPU is scarce, so every section works through cells in a fixed order, writes each as soon as it is done, and
goes on behind them when it is called again. A killed call loses the cell at hand.
"""
