"""What is told of runs and studies to Weights & Biases."""
