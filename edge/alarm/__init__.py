"""The alarm service: incidents from the journal to people and the care record. No numpy, no onnxruntime."""
