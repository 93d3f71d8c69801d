"""Data only: concept manifests, prompt sets and suites."""
