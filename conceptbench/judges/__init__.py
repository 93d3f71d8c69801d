"""Judges of the paper tier: networks that the papers asked, from this machine's caches, packages or files."""
