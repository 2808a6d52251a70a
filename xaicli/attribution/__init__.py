"""Saliency: what a model looked at, from the model and a few inputs; knows nothing of recorded rows or of pages."""
