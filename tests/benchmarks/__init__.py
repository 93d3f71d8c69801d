"""Speed, measured as ratios: ours and a baseline side by side in one run. ``python tests/benchmarks/run.py`` prints one table."""
