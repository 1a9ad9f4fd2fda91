"""Training and prediction configs from the volumes alone: what they hold decides each line."""
