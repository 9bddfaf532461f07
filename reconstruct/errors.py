"""The errors this package raises on purpose. Each carries one clear line for a person."""

LONGEST = 1000
"""Characters of a message. It may name what a file names, and a file may name anything: a word of a megabyte."""
LONGEST_WORDS = 300
"""Characters of somebody else's message that are passed on in ours."""


def cut(text: str, most: int) -> str:
    """The text without its middle, where it is longer than so many characters."""
    return text if len(text) <= most else f"{text[: most // 2 - 1]}...{text[2 - most + most // 2 :]}"


def words_of(error: BaseException, most: int = LONGEST_WORDS) -> str:
    """What somebody else's error says, on one line and not at length; its kind where it says nothing.

    Its beginning: what torch appends to some messages is its own stack.
    """
    said = " ".join(str(error).split()) or type(error).__name__
    return said if len(said) <= most else f"{said[: most - 3]}..."


class ReconstructError(ValueError):
    """Something that the caller can put right; the message says what, where, and what would be right.

    A message of more than ``LONGEST`` characters is cut in its middle.

    Examples
    --------
    >>> import reconstruct
    >>> try:
    ...     reconstruct.load_model("crelu_conv1_5")
    ... except reconstruct.ReconstructError as error:
    ...     print(type(error).__name__)
    ModelError
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(cut(str(message), LONGEST))


class CallError(ReconstructError):
    """A wrong call: an unknown model or layer, an unsuitable method, a value out of range (exit status 2).

    Examples
    --------
    >>> import reconstruct
    >>> try:
    ...     reconstruct.load_model("crelu_conv1_4").layer("convv1")
    ... except reconstruct.CallError as error:
    ...     print(str(error)[:58])
    crelu_conv1_4 has no layer 'convv1'; did you mean conv1? I
    """


class ModelError(CallError):
    """A model specification or weights file that cannot be used as it is.

    Examples
    --------
    >>> import reconstruct
    >>> try:
    ...     reconstruct.load_model("all_cnn_c.toml")
    ... except reconstruct.ModelError as error:
    ...     print(error)
    there is no specification all_cnn_c.toml
    """


class FeatureError(CallError):
    """Features that are not what the layer could have produced.

    Examples
    --------
    >>> import reconstruct, torch
    >>> net = reconstruct.load_model("crelu_conv1_4")
    >>> try:
    ...     reconstruct.invert(net, -torch.ones(1, 192, 55, 55), "conv1")
    ... except reconstruct.FeatureError as error:
    ...     print("negative" in str(error))
    True
    """


class ImageError(ReconstructError):
    """An image that cannot be read, or is too small for what is asked (exit status 1).

    Examples
    --------
    >>> import reconstruct
    >>> try:
    ...     reconstruct.load_image("README.md", 64)
    ... except reconstruct.ImageError as error:
    ...     print("README.md" in str(error))
    True
    """


class ReconstructWarning(UserWarning):
    """What a user should know of a network that works all the same: one clear line, as the errors carry.

    Examples
    --------
    >>> import reconstruct, torch, warnings
    >>> module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4, track_running_stats=False))
    >>> with warnings.catch_warnings(record=True) as told:
    ...     warnings.simplefilter("always")
    ...     net = reconstruct.from_torch(module, input_size=32)
    >>> print(str(told[0].message)[:50])
    Sequential takes the images of a batch together: t
    """
