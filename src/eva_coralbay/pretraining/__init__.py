"""Self-distillation on unlabelled CT scans, which makes the checkpoints of the encoder."""
