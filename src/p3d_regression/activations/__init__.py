"""Final activations: what a config may say (:mod:`.spec`), what there is (:mod:`.registry`), what it can produce
(:mod:`.ranges`), and how it is built (:mod:`.final`).

Data flows one way: config value -> spec (pure data) -> registry -> ``nn.Module``.
"""
