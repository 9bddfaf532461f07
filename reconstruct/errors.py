"""The errors this package raises on purpose. Each carries one clear line for a person."""


class ReconstructError(ValueError):
    """Something that the caller can put right; the message says what, where, and what would be right."""


class CallError(ReconstructError):
    """A wrong call: an unknown model or layer, an unsuitable method, a value out of range (exit status 2)."""


class ModelError(CallError):
    """A model specification or weights file that cannot be used as it is."""


class FeatureError(CallError):
    """Features that are not what the layer could have produced."""


class ImageError(ReconstructError):
    """An image that cannot be read, or is too small for what is asked (exit status 1)."""
