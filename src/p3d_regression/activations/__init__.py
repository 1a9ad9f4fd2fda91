"""Final activations: what a config may say (:mod:`.spec`), which values they can produce (:mod:`.ranges`)."""
