"""Whether a run may replace another: rules, and what they find."""
