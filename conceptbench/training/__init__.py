"""How models are trained from the beginning."""
