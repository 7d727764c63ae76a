"""What a run may say, checked, and the identity that follows from it."""
