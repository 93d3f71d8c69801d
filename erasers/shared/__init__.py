"""What erasers have in common: the training loop, trajectories of latents, and spans of tokens."""
