"""What is sent to Weights & Biases of runs and studies."""
