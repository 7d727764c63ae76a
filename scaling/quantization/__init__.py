"""Number formats, and tensors rounded to them."""
