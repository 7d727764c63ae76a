"""Which run next: what a table leaves open, and the runs that would narrow it most for their cost."""
