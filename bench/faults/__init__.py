"""Whether anything is lost, or changed in silence: `python -m bench.faults` (or `make test-faults`).

Commands of a small study are killed at random times, find their files damaged, or a disk that is full. What they end
with has to be the same to the bit as without, or there has to be one line and a nonzero exit status; never a traceback.
It ends with a table of what became of all cases.

| module | holds |
|---|---|
| `sweeps/faults.yaml` | the small study |
| `commands.py` | commands as processes: forked from this one, started anew, or called in it |
| `place.py` | a folder in which commands run, what they leave there, and what must be the same |
| `outcomes.py` | what became of a case, and the table |
| `kills.py` | SIGKILL at random times |
| `damage.py` | files cut, zeroed, swapped and with a flipped bit |
| `full_disk.py` | small file systems that fill up |

Times of kills and places of damage are drawn from a seed. What a kill meets depends on the machine's speed as well, so
a seed repeats the damage, and the kills only roughly.
"""
