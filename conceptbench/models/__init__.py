"""Torch: families and bases, erasures applied to them, sampling, attention sites."""
