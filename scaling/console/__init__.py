"""What a person, W&B or torchrun sees of a command."""
