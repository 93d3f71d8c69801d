"""Erasers: one file a method. What they have in common is in :mod:`conceptbench.erasers.shared`."""
