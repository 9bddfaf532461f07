"""Networks of timm and torchvision with random weights: are the features a hook's own, and does map invert them?

    python benchmarks/sweep.py [NAME...] [--seconds 30] [--output docs/figures]

Of each network some layers are read, and what the toolkit gives is compared with what a hook on the module itself saw;
of two of them a picture is inverted by map with a few evaluations. Each network has a process of its own, which ends
when its processor time is up. Prints a line a network, writes sweep.json and puts the table between the marks of
docs/networks.md. Exit status 1 if features differ anywhere, or an error is none that is meant for people.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import permutations
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn
from torchvision import models

import reconstruct
from reconstruct.errors import ReconstructError
from reconstruct.network.module import ModuleNetwork

TIMM = (
    "halonet26t", "mobileone_s0", "cait_xxs24_224", "coat_tiny", "convit_tiny", "convmixer_768_32", "convnext_atto",
    "cpubone_nano", "crossvit_tiny_240", "csatv2", "cs3darknet_focus_s", "cspnext_tiny", "davit_tiny",
    "deit_tiny_patch16_224", "densenet121", "dla46_c", "dpn48b", "edgenext_xx_small", "efficientformer_l1",
    "efficientformerv2_s0", "efficientnet_lite0", "efficientvim_m1", "efficientvit_b0", "efficientvit_m0",
    "eva02_tiny_patch14_224", "fasternet_t0", "fastvit_t8", "focalnet_tiny_srf", "gcvit_xxtiny", "ghostnet_050",
    "hardcorenas_b", "hgnetv2_b0", "hiera_tiny_224", "hrnet_w18_small", "iformer_t", "inception_next_atto",
    "inception_v4", "lcnetv2_small", "levit_128s", "lowformer_b0", "mambaout_femto", "coatnet_pico_rw_224",
    "poolformerv2_s12", "gmixer_12_224", "resmlp_12_224", "mixer_s32_224", "mobilenetv3_small_050", "mobilevit_xxs",
    "mvitv2_tiny", "nest_tiny", "nextvit_small", "pit_ti_224", "pvt_v2_b0", "rdnet_tiny", "regnetx_002",
    "repghostnet_050", "repvit_m0_9", "res2net50_14w_8s", "resnest14d", "resnet10t", "resnetv2_18", "rexnet_100",
    "selecsls42b", "legacy_seresnet18", "sequencer2d_s", "shvit_s1", "skresnet18", "starnet_s1", "swiftformer_xs",
    "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "swinv2_cr_tiny_ns_224", "tiny_vit_5m_224",
    "tnt_s_patch16_224", "twins_svt_small", "vgg11", "visformer_tiny", "vit_tiny_patch16_224",
    "vit_tiny_r_s16_p8_224", "vit_relpos_small_patch16_224", "vitamin_small_224", "volo_d1_224", "ese_vovnet19b_dw",
    "xception41", "xcit_nano_12_p16_224", "dm_nfnet_f0", "eca_nfnet_l0",
)  # fmt: skip
CLASSIFICATION = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3",
    "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf", "regnet_y_400mf", "resnet18",
    "resnext50_32x4d", "wide_resnet50_2", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11",
    "vgg11_bn", "vit_b_16",
)  # fmt: skip
SEGMENTATION = ("deeplabv3_mobilenet_v3_large", "deeplabv3_resnet50", "fcn_resnet50", "lraspp_mobilenet_v3_large")
DETECTION = (
    "fasterrcnn_mobilenet_v3_large_320_fpn", "fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2",
    "fcos_resnet50_fpn", "keypointrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn", "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2", "ssd300_vgg16", "ssdlite320_mobilenet_v3_large",
)  # fmt: skip
SIZES = (32, 64, 96, 128, 224, 240, 256, 320)
"""Sides that are tried, smallest first: what a network is made for is rarely needed to read its layers."""
READ = 5
BUDGET = 30
TOLERANCE = 1e-5
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
BEGIN, END = "<!-- sweep -->", "<!-- end of sweep -->"


def networks() -> dict[str, Callable[[int], nn.Module]]:
    """How to make each network for images of a size, by ``timm:NAME`` or ``torchvision:NAME``."""
    made: dict[str, Callable[[int], nn.Module]] = {f"timm:{name}": _timm(name) for name in TIMM}
    made |= {f"torchvision:{name}": _torchvision(name, {}) for name in CLASSIFICATION}
    plain = {"weights_backbone": None}
    made |= {f"torchvision:{name}": _torchvision(name, plain) for name in SEGMENTATION}
    return made | {f"torchvision:{name}": _torchvision(name, plain, "backbone") for name in DETECTION}


def _timm(name: str) -> Callable[[int], nn.Module]:
    def make(size: int) -> nn.Module:
        try:
            return timm.create_model(name, img_size=size)
        except TypeError:  # it takes images of any size
            return timm.create_model(name)

    return make


def _torchvision(name: str, options: Mapping[str, Any], part: str = "") -> Callable[[int], nn.Module]:
    def make(size: int) -> nn.Module:
        sized = {"image_size": size} if name.startswith("vit") else {"input_size": (size, size)}
        own = sized if name.startswith(("vit", "maxvit")) else {}
        module: nn.Module = models.get_model(name, weights=None, **options, **own)
        return module.get_submodule(part)

    return make


def fitting(make: Callable[[int], nn.Module]) -> tuple[nn.Module, int]:
    """A network in evaluation mode at the first size at which it runs."""
    reason: Exception | None = None
    for size in SIZES:
        torch.manual_seed(0)
        try:
            module = make(size).eval()
            with torch.no_grad():
                module(torch.zeros(2, 3, size, size))
        except Exception as error:  # whatever its own code raises at a size that it is not made for
            reason = error
            continue
        return module, size
    raise RuntimeError(f"it runs at none of {SIZES}") from reason


def sampled(names: Sequence[str], count: int) -> list[str]:
    """Names evenly spaced from first to last."""
    if len(names) <= count:
        return list(names)
    return [names[round(index * (len(names) - 1) / (count - 1))] for index in range(count)]


def seen_by_hook(module: nn.Module, images: torch.Tensor, net: ModuleNetwork, layer: str) -> torch.Tensor:
    """What a hook on the module itself sees at a layer, for normalised images."""
    call = net.call(layer)
    seen: list[torch.Tensor] = []

    def look(_part: nn.Module, _given: Any, result: Any) -> None:
        for key in getattr(call, "way", ()):  # to a tensor in a tuple or a dictionary
            result = result[key]
        if isinstance(result, torch.Tensor):
            seen.append(result.detach().clone())

    hook = module.get_submodule(call.part).register_forward_hook(look)
    try:
        with torch.no_grad():
            module((images - net.mean) / net.std)
    finally:
        hook.remove()
    return seen[call.number - 1]


def difference(features: torch.Tensor, wanted: torch.Tensor) -> float:
    """The relative difference of features from a hook's, whose axes may be in another order; infinite for others."""
    got, best = features.squeeze(), float("inf")
    plain = wanted.squeeze()
    for order in permutations(range(plain.ndim)):
        turned = plain.permute(order)
        if turned.shape == got.shape:
            best = min(best, float((got - turned).norm() / turned.norm().clamp_min(1e-30)))
    return best


def judged(name: str) -> Iterator[dict[str, Any]]:
    """One network, layer by layer: what of it was read, how far it is from a hook's, and how map went."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    module, size = fitting(networks()[name])
    row: dict[str, Any] = {"network": name, "size": size, "layers": []}
    try:
        net = reconstruct.from_torch(module, IMAGENET, input_size=size, name=name.partition(":")[2])
    except ReconstructError as error:
        yield row | {"refused": str(error)}
        return
    row["all_layers"] = len(net.layer_names)
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    chosen = sampled(net.layer_names, READ)
    for layer in chosen:
        row["layers"].append(read(module, net, images, layer))
    yield row
    for found in row["layers"][1::2]:
        if "difference" in found:
            found.update(inverted(net, net.features(images[:1], found["layer"]), found["layer"]))
            yield row


def read(module: nn.Module, net: ModuleNetwork, images: torch.Tensor, layer: str) -> dict[str, Any]:
    """A layer's features, and how far they are from a hook's."""
    try:
        features = net.features(images, layer)
    except ReconstructError as error:
        return {"layer": layer, "refused": str(error)}
    far = difference(features, seen_by_hook(module, images, net, layer))
    return {"layer": layer, "shape": list(features.shape[1:]), "difference": far}


def inverted(net: ModuleNetwork, features: torch.Tensor, layer: str) -> dict[str, Any]:
    """How map inverts an image's features."""
    began = time.monotonic()
    try:
        result = reconstruct.invert(net, features, layer, method="map", budget=BUDGET)
    except ReconstructError as error:
        return {"map_refused": str(error)}
    except Exception as error:  # a finding, and no reason to leave out the other layers
        return {"map_error": _last_line(error)}
    return {
        "map": result.status[0],
        "residual": float(result.feature_residual[0]),
        "seconds": round(time.monotonic() - began, 1),
    }


def _in_a_process(name: str, seconds: int, answer: Connection) -> None:
    spent = int(time.process_time())
    resource.setrlimit(resource.RLIMIT_CPU, (spent + seconds, spent + seconds + 1))
    try:
        for row in judged(name):
            answer.send(row)
    except Exception as error:
        answer.send({"error": _last_line(error)})
        traceback.print_exc(limit=-3)
    answer.send({"finished": True})


def _last_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0][:200]


def swept(names: Sequence[str], seconds: int) -> Iterator[dict[str, Any]]:
    """The rows of the networks, each from a process that has so much processor time."""
    context = multiprocessing.get_context("fork")  # a new interpreter would import everything again
    for name in names:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_in_a_process, args=(name, seconds, theirs))
        process.start()
        theirs.close()
        row: dict[str, Any] = {"network": name, "layers": []}
        try:
            # A machine that others use, too, takes longer; one that waits for ever is waited for no longer.
            while ours.poll(10 * seconds) and "finished" not in row:
                row |= ours.recv()
        except EOFError:
            pass
        process.kill()
        process.join()
        if row.pop("finished", None) is None:
            row["stopped"] = f"not done after {seconds} s"
        yield row


def outcome(row: Mapping[str, Any]) -> str:
    """equal, differs, refused, stopped (before anything was compared) or error."""
    compared = [each["difference"] for each in row["layers"] if "difference" in each]
    if "error" in row or any("map_error" in each for each in row["layers"]):
        return "error"
    if compared:
        return "equal" if max(compared) <= TOLERANCE else "differs"
    return "stopped" if "stopped" in row else "refused"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows in Markdown: a line a network."""
    lines = [
        "| network | image | layers | features read | farthest from a hook's | map |",
        "| --- | --- | ---: | --- | ---: | --- |",
    ]
    for row in rows:
        kind = outcome(row)
        if not row["layers"]:
            lines.append(f"| `{row['network']}` | | | {kind}: {_cell(str(row.get(kind, '')))} | | |")
            continue
        compared = [each for each in row["layers"] if "difference" in each]
        worst = max((each["difference"] for each in compared), default=float("inf"))
        ways = [_map_cell(each) for each in row["layers"] if any(key.startswith("map") for key in each)]
        ways += [_cell(row[each]) for each in ("stopped", "error") if each in row]
        lines.append(
            f"| `{row['network']}` | {row['size']} | {row['all_layers']} | {len(compared)} of {len(row['layers'])} "
            f"| {worst:.0e} | {'; '.join(ways)} |"
        )
    return "\n".join(lines)


def _map_cell(found: Mapping[str, Any]) -> str:
    if "map" not in found:
        return f"`{found['layer']}`: {_cell(found.get('map_refused') or found['map_error'])}"
    return f"`{found['layer']}` to {found['residual']:.2g}"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())[:200]


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many networks, and layers, went which way."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[outcome(row)] = counts.get(outcome(row), 0) + 1
    layers = [each for row in rows for each in row.get("layers", [])]
    return counts | {
        "networks": len(rows),
        "layers_compared": sum("difference" in each for each in layers),
        "inverted": sum("map" in each for each in layers),
        "map_refused": sum("map_refused" in each for each in layers),
        "map_errors": sum("map_error" in each for each in layers),
    }


def written(rows: Sequence[Mapping[str, Any]], folder: Path, page: Path) -> None:
    """Write sweep.json, and the table into the page."""
    record = {
        "versions": {each: version(each) for each in ("torch", "torchvision", "timm")},
        "summary": summary(rows),
        "budget": BUDGET,
        "networks": rows,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sweep.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    text = f"{before}{BEGIN}\n\n{table(rows)}\n\n{END}{rest.partition(END)[2]}"
    page.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="default all, which are written")
    parser.add_argument("--seconds", type=int, default=30, help="of processor time that each network has")
    parser.add_argument("--output", type=Path, default=Path("docs/figures"))
    parser.add_argument("--page", type=Path, default=Path("docs/networks.md"))
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for row in swept(arguments.names or list(networks()), arguments.seconds):
        rows.append(row)
        print(row["network"], outcome(row), row.get("error", ""), flush=True)
        if not arguments.names:
            written(rows, arguments.output, arguments.page)
    print(json.dumps(summary(rows)))
    sys.exit(any(outcome(row) in ("differs", "error") for row in rows))


if __name__ == "__main__":
    main()
