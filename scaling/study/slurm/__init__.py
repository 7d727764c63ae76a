"""A study on SLURM: stacks become jobs of arrays, jobs save and are queued again at a signal, and who waits for them
learns from the queue and from the run folders how they fare. submitit writes the job scripts and starts Python there.
"""
