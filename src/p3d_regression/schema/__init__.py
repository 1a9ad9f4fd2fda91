"""The configs of pytorch-3dunet as a JSON Schema, for editors: keys, values and defaults of the installed versions."""
