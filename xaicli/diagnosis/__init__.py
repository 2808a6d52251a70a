"""What went wrong, in numbers: who is taken for whom, how sure, and at which step.

Everything here works on columns of one place or one training; reading them is left to the callers.
"""
