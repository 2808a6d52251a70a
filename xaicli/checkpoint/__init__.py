"""Saved models: inspected, loaded without running their code, written and converted."""
