"""Metrics from a pass of their own: predictors, collectors, and the pass."""
