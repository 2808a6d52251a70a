"""Tables: samples with names, ids and weights, what their columns mean, and metrics as columns for a run."""
