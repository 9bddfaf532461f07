"""What a call names, as commands take it: methods, a device, a model, and pictures in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from reconstruct.commands.terminal import notes
from reconstruct.errors import CallError, ImageError
from reconstruct.extras import install_hint

if TYPE_CHECKING:
    import torch

    from reconstruct.network.architecture import Size as Area
    from reconstruct.network.network import Network
    from reconstruct.network.protocol import AnyNetwork
    from reconstruct.network.read_points import Joint, Point

COMMANDS = (
    "invert",
    "features",
    "models",
    "bounds",
    "evaluate",
    "report",
    "analyze",
    "train",
    "classify",
    "tables",
    "doctor",
    "demo",
    "app",
)


class Item(NamedTuple):
    """An image on its way: as it was called, the stem of what is written of it, and C x H x W."""

    name: str
    stem: str
    picture: torch.Tensor


def methods_of(net: AnyNetwork, method: str, layer: str, tap: str | None, quiet: bool) -> dict[str, list[str]]:
    """For each layer with any, by name, the methods that apply; asked for alone, one that does not is an error."""
    from reconstruct.inversion.methods import METHODS, applicable, method_of
    from reconstruct.network.read_points import joints

    wanted = joints(net, layer, tap)
    alone = "," not in method and method != "all" and layer != "all"
    names = list(METHODS) if method == "all" else [name.strip() for name in method.split(",") if name.strip()]
    for name in names:
        method_of(name)
    chosen: dict[str, list[str]] = {}
    for at in wanted:
        reasons = {name: applicable(at.net, at.layer, name) for name in dict.fromkeys(names)}
        chosen[at.name] = [name for name, reason in reasons.items() if reason is None]
        for name, reason in reasons.items():
            if reason is not None and alone:
                raise CallError(reason)
            if reason is not None and not quiet:
                notes.print(f"skipped {name} at {at.name}: {reason}", soft_wrap=True)
    chosen = {layer: names for layer, names in chosen.items() if names}
    if not chosen:
        where = ", ".join(at.name for at in wanted)
        raise CallError(f"no method of {', '.join(names)} applies to {where} of {net.name}")
    return chosen


def tell_what_is_left_out(at: Point | Joint, noise: Sequence[float]) -> None:
    """Say which of the layers that ``+`` joins are not inverted, others' features being exact."""
    from reconstruct.inversion.joint import determined

    nets, layers = [part.net for part in at.parts], [part.layer for part in at.parts]
    for lost, by in determined(nets, layers, noise).items():
        notes.print(f"{at.name}: {lost} says nothing that exact features of {by} do not", soft_wrap=True)


def device_of(wanted: str, needs_cupy: bool = True) -> str:
    """The device that ``--device`` names: ``cpu`` or ``cuda``.

    Parameters
    ----------
    wanted : ``auto`` takes a GPU that is there, and that the work can use.
    needs_cupy : whether a GPU is of use only with CuPy.

    Raises
    ------
    CallError : another name, or ``cuda`` where torch finds no device.
    """
    import torch

    if wanted not in ("auto", "cpu", "cuda"):
        raise CallError(f"--device is auto, cpu or cuda, not '{wanted}'")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise CallError("--device cuda: torch finds no CUDA device here; use --device cpu")
    if wanted != "auto":
        return wanted
    if not torch.cuda.is_available():
        return "cpu"
    if not needs_cupy:
        return "cuda"
    if find_spec("cupy") is None:
        notes.print(f"a GPU is there but CuPy is not ({install_hint('gpu')}): using the CPU", soft_wrap=True)
        return "cpu"
    return "cuda"


def load_chain(name: str, random_weights: int | None, device: str, layer: str) -> Network:
    """A model as a chain of convolutions; of a torch module the longest that it begins with.

    ``layer`` : as ``--layer`` has it; the chain then knows these layers by the module's names.
    """
    from reconstruct.network.read_points import named_chain
    from reconstruct.zoo.load import load_model

    return named_chain(load_model(name, random_weights=random_weights, device=device), layer)


def tell_other_size(net: AnyNetwork, size: Area | int | None, native: bool) -> None:
    """Say that a call has pictures another size than the publisher of the weights makes them, if it has."""
    how = net.preprocessing
    if how is None or (size is None and not native):
        return
    asked = "--native" if native else f"--size {size if isinstance(size, int) else 'x'.join(map(str, size or ()))}"
    notes.print(f"{how.stated_by}: {how}; {asked} does without that", soft_wrap=True)


def batches(
    images: list[Path],
    net: AnyNetwork,
    layers: list[str],
    size: Area | int | None,
    native: bool,
    quiet: bool,
    failures: set[str],
) -> Iterator[list[Item]]:
    """The images in batches of one size, as many as fit; the error of each that cannot be used is told and added."""
    from reconstruct.evaluation.batch import CPU_PIXELS
    from reconstruct.images.batches import in_batches
    from reconstruct.images.files import picture_mode

    picture_mode(net.channels, net.name)  # not once for every picture
    usable = _usable(images, net, layers, size, native, quiet, failures)
    return in_batches(usable, lambda item: (item.picture.shape[1], item.picture.shape[2]), CPU_PIXELS)


def _usable(
    images: list[Path],
    net: AnyNetwork,
    layers: list[str],
    size: Area | int | None,
    native: bool,
    quiet: bool,
    failures: set[str],
) -> Iterator[Item]:
    """The images that can be used, one by one; the error of any other is told and added to ``failures``."""
    from reconstruct.images.names import file_part

    stems: list[str] = []
    for path in images:
        try:
            picture = _picture(path, net, layers, size, native, quiet)
        except ImageError as error:
            failure = str(error)
            if failure not in failures:  # not once more for each of several models
                notes.print(f"reconstruct: {failure}", soft_wrap=True)
            failures.add(failure)
            continue
        own = stem = file_part(path.stem)
        count = 1
        while stem in stems:  # images of one name in several folders
            count += 1
            stem = f"{own}-{count}"
        stems.append(stem)
        yield Item(str(path), stem, picture)


def _picture(
    path: Path, net: AnyNetwork, layers: list[str], size: Area | int | None, native: bool, quiet: bool
) -> torch.Tensor:
    """The image as it goes into the network, C x H x W, cropped and resized as asked."""
    from reconstruct.images.files import model_input, read_image, to_tensor
    from reconstruct.images.names import told
    from reconstruct.network.read_points import layers_read

    picture = read_image(path)
    fitted = model_input(picture, told(path), net, layers_read(net, layers), size, native)
    if not quiet and not native and (picture.width < fitted.width or picture.height < fitted.height):
        notes.print(
            f"{told(path)} is {picture.height} x {picture.width} pixels, enlarged to {fitted.height} x {fitted.width}",
            soft_wrap=True,
        )  # fmt: skip
    return to_tensor(fitted)
