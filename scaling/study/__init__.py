"""A grid of runs made into jobs: priced, launched and watched."""
