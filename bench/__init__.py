"""Benchmarks: this program compared with what a user would pick instead, as ratios in one run."""
