"""The mini tier: a drawn world, a small latent-diffusion model trained on it, and its judges. A plugin like any other."""
