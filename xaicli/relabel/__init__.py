"""Samples to people who correct labels, and their corrections back: `relabel export`, `relabel apply`."""
