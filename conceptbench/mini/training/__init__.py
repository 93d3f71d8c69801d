"""The recipe of the shipped weights: ``python -m conceptbench.mini.training --help``."""
