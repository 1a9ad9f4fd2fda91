"""Final activations: what a config may say (:mod:`.spec`), what there is and which values it can produce
(:mod:`.registry`, :mod:`.modules`, :mod:`.torch_nn`), and how it is built (:mod:`.final`).

Data flows one way: config value -> spec (pure data) -> registry -> ``nn.Module``.
"""
