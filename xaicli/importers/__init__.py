"""Runs of other trackers as run directories: TensorBoard, W&B's offline folders, trackio, CSV."""
