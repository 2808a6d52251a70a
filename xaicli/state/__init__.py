"""`run.state`: where a training is, what it wrote about itself, and how it is saved and resumed."""

from xaicli.state.training import TrainingState

__all__ = ["TrainingState"]
