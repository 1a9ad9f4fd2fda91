"""What configs name and plugins add: activations, losses, metrics. Their arguments, their registries."""
