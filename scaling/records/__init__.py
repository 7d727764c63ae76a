"""What is on disk of runs, and the table made of it."""
