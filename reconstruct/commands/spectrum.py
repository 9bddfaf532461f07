"""``reconstruct analyze spectrum``: what ReLU does to spectra (Kechris et al. 2024), of tones and of pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reconstruct.commands.analyze import LayerList, analyze, load_nets
from reconstruct.commands.common import batches, tell_other_size
from reconstruct.commands.findings import Columns, Told, finish, write
from reconstruct.commands.groups import example
from reconstruct.commands.options import (
    AsJson,
    Device,
    Output,
    Quiet,
    RandomWeights,
    SideOrArea,
    Threads,
    area_of,
    numbers_of,
)
from reconstruct.commands.terminal import busy, progress
from reconstruct.errors import CallError

if TYPE_CHECKING:
    from reconstruct.analysis.spectrum.tones import Tones
    from reconstruct.network.architecture import Size as Area

PARTS = ("series", "networks", "dc", "training", "pulse")
COUNTS = (1, 2, 3, 5, 10, 20, 50, 100, 200)
"""The numbers of terms whose errors are told."""


@analyze.command(
    epilog=example(
        "reconstruct analyze spectrum --output paper",
        "reconstruct analyze spectrum photo.jpg --model crelu_conv1_4 --layer conv1 --output paper",
    )
)
def spectrum(
    images: Annotated[
        list[Path] | None, typer.Argument(metavar="[IMAGE...]", help="Pictures; without any, the tones of the paper.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="With pictures: names in the zoo or paths, with commas.")] = None,
    layer: LayerList = "all",
    size: SideOrArea = None,
    random_weights: RandomWeights = None,
    device: Device = "auto",
    threads: Threads = None,
    part: Annotated[
        str, typer.Option(help=f"Without pictures: {', '.join(PARTS)}, several with commas, or 'all'.")
    ] = "all",
    tones: Annotated[str, typer.Option(help="Frequencies of the tones, Hz, with commas.")] = "5,10,20,40",
    amplitudes: Annotated[str | None, typer.Option(help="Their amplitudes, with commas; default 1 each.")] = None,
    rate: Annotated[float, typer.Option(help="Samples of the tones a second.")] = 1024.0,
    seconds: Annotated[float, typer.Option(help="Length of the tones' stretch.")] = 8.0,
    terms: Annotated[int, typer.Option(help="Of the approximation that is drawn.", min=1)] = 50,
    seeds: Annotated[int, typer.Option(help="Repetitions of the trained models.", min=1)] = 5,
    epochs: Annotated[int, typer.Option(help="Of their training.", min=1)] = 60,
    count: Annotated[int, typer.Option(help="Their cosines of each class.", min=2)] = 256,
    random_phases: Annotated[
        bool, typer.Option("--random-phases", help="Their phases random: nothing but the DC tells frequencies apart.")
    ] = False,
    steps: Annotated[int, typer.Option(help="Of the pulse network's training.", min=1)] = 400,
    output: Output = Path(),
    as_json: AsJson = False,
    seed: Annotated[int, typer.Option(help="Seed of whatever is random.", min=0)] = 0,
    quiet: Quiet = False,
) -> None:
    """What ReLU does to a spectrum: the figures of "DC is all you need".

    Without pictures: series and example signal (Table I, Figure 1), example networks (2), a trained pulse network in
    place of the paper's (3), training with and without a DC (4), DC features (5); writes spectrum.PART.png and
    spectrum.json. With pictures: spectra of a model's layers before and after rectification; writes
    IMAGE.MODEL.spectrum.png and spectrum.images.json.
    """
    if images:
        if model is None:
            raise CallError("spectra of a picture are those of a model's layers: add --model")
        _pictures(images, model, layer, area_of(size), random_weights, device, output, as_json, quiet)
        return
    if model is not None:
        raise CallError("--model is for spectra of pictures: name at least one picture")
    chosen = _parts(part)
    with busy("loading", quiet or as_json):
        from reconstruct.analysis.spectrum.tones import Tones

        frequencies = numbers_of(tones, float, "--tones", "5,10,20,40")
        strengths = [1.0] * len(frequencies)
        if amplitudes is not None:
            strengths = numbers_of(amplitudes, float, "--amplitudes", "1,1,0.5,1")
        played = Tones(tuple(frequencies), tuple(strengths), rate, seconds)
    work: dict[str, Callable[[], list[Told]]] = {
        "series": lambda: _series(played, terms, output),
        "networks": lambda: _networks(played, output),
        "dc": lambda: _dc(seed, output),
        "training": lambda: _training(seeds, epochs, count, seed, random_phases, output),
        "pulse": lambda: _pulse(seed, steps, output),
    }
    told: list[Told] = []
    with progress(len(chosen), quiet or as_json, "analysing") as advance:
        for name in chosen:
            told += work[name]()
            advance(1)
    finish("spectrum", told, output, as_json, quiet)


def _parts(part: str) -> list[str]:
    """The parts that ``--part`` lists, in their order here.

    Raises
    ------
    CallError : an unknown part, or none.
    """
    wanted = [name.strip() for name in part.split(",") if name.strip()]
    if wanted == ["all"]:
        return list(PARTS)
    unknown = [name for name in wanted if name not in PARTS]
    if unknown or not wanted:
        raise CallError(f"--part is {', '.join(PARTS)} or all, not '{', '.join(unknown) or part}'")
    return [name for name in PARTS if name in wanted]


def _series(tones: Tones, terms: int, output: Path) -> list[Told]:
    """Table I and Figure 1: coefficients, errors by the number of terms, and strong lines beside their prediction."""
    from reconstruct.analysis.spectrum.series import coefficients, series_errors, strongest_lines
    from reconstruct.report.figures.tones import example_figure, series_figure

    errors = series_errors(tones, sorted({*COUNTS, terms}))
    told = [{"what": "series", **each} for each in errors.records()]
    lines = [{"what": "line", "terms": terms, **each.record()} for each in strongest_lines(tones, terms)]
    figures = [
        write(series_figure(errors), output / "spectrum.series.png"),
        write(example_figure(tones, terms), output / "spectrum.example.png"),
    ]
    by_terms: Columns = {
        "terms": lambda r: str(r["terms"]),
        "last coefficient": lambda r: f"{r['coefficient']:.3g}",
        "DC error": lambda r: f"{r['dc_error']:.2%}",
        "RMS error": lambda r: f"{r['rms_error']:.2%}",
        "largest error": lambda r: f"{r['largest_error']:.4f}",
        "at 0, in closed form": lambda r: f"{r['largest_error_bound']:.4f}",
    }
    by_line: Columns = {
        "line, Hz": lambda r: f"{r['frequency']:g}",
        "measured": lambda r: f"{r['measured']:.4f}",
        f"predicted, {terms} terms": lambda r: f"{r['predicted']:.4f}",
    }
    values = [{"what": "coefficients", "values": coefficients(terms).tolist()}]
    return [(told, by_terms, figures), (lines, by_line, []), (values, {}, [])]


def _networks(tones: Tones, output: Path) -> list[Told]:
    """Figure 2: the differentiating and the averaging network."""
    from reconstruct.analysis.spectrum.example_networks import network_spectra
    from reconstruct.report.figures.tones import network_figure

    found = network_spectra(tones)
    told = [{"what": "network", "network": name, **each.record()} for name, each in found.items()]
    columns: Columns = {
        "network": lambda r: r["network"],
        "DC": lambda r: f"{r['dc']:.4g}",
        "strongest lines, Hz": lambda r: ", ".join(f"{frequency:g}" for frequency, _ in r["lines"][:6]),
    }
    return [(told, columns, [write(network_figure(found), output / "spectrum.networks.png")])]


def _dc(seed: int, output: Path) -> list[Told]:
    """Figure 5: what one filter's DC tells of a frequency, untrained."""
    from reconstruct.analysis.spectrum.dc_features import dc_features
    from reconstruct.report.figures.dc import dc_figure

    found = dc_features(seed=seed)
    told = [{"what": "dc_feature", **each} for each in found.records()]
    columns: Columns = {
        "filter": lambda r: str(r["filter"]),
        "taps": lambda r: ", ".join(f"{tap:.2f}" for tap in r["taps"]),
        "balanced accuracy": lambda r: f"{r['balanced_accuracy']:.1%}",
        "gap, deviations": lambda r: f"{r['gap']:.1f}",
        "off |H(f)| / pi by": lambda r: f"{r['prediction_error']:.1%}",
    }
    return [(told, columns, [write(dc_figure(found, found.usual), output / "spectrum.dc.png")])]


def _training(seeds: int, epochs: int, count: int, seed: int, random_phases: bool, output: Path) -> list[Told]:
    """Figure 4: ReLU, linear, and linear with a DC by hand."""
    from reconstruct.analysis.spectrum.dc_training import train_dc_models
    from reconstruct.report.figures.dc import training_figure

    found = train_dc_models(seeds, epochs, count, seed, random_phases=random_phases)
    call = {"seeds": seeds, "epochs": epochs, "cosines_a_class": count, "random_phases": random_phases}
    told = [{"what": "training", "network": each.model, **call, **each.record()} for each in found]
    columns: Columns = {
        "network": lambda r: r["network"],
        "last loss": lambda r: f"{r['loss'][-1]:.3g} ± {r['loss_std'][-1]:.2g}",
        "accuracy": lambda r: f"{r['accuracy'][-1]:.1%}",
        "conv1 from its start": lambda r: f"{r['distance1'][-1]:.2f} ± {r['distance1_std'][-1]:.2f}",
        "conv2": lambda r: f"{r['distance2'][-1]:.2f} ± {r['distance2_std'][-1]:.2f}",
        "norms at the start": lambda r: f"{r['start1']:.2f}, {r['start2']:.2f}",
    }
    return [(told, columns, [write(training_figure(found), output / "spectrum.training.png")])]


def _pulse(seed: int, steps: int, output: Path) -> list[Told]:
    """A stand-in for Figure 3: a network that reads heart rates, one wave through it, and its layers over many."""
    from reconstruct.analysis.spectrum.pulse import train_pulse
    from reconstruct.analysis.spectrum.pulse_spectra import pulse_spectra
    from reconstruct.report.figures.layer_spectra import pulse_figure, spectra_figure

    trained = train_pulse(seed, steps)
    found = pulse_spectra(trained, seed)
    figures = [write(spectra_figure(found.layers), output / "spectrum.pulse.layers.png")]
    for layer in found.behind:
        figure = pulse_figure(layer, found.wave, found.heart_rate)
        figures.append(write(figure, output / f"spectrum.pulse.{layer.name}.png"))
    error = {"what": "pulse", "steps": steps, **trained.record()}
    told = [{"what": "pulse_layer", **layer.record()} for layer in found.layers]
    rates: Columns = {
        "heart rate: error, beats a minute": lambda r: f"{r['error_bpm']:.2f}",
        "a constant guess": lambda r: f"{r['constant_guess_bpm']:.1f}",
    }
    shares: Columns = {
        "activation": lambda r: r["activation"],
        "samples a second": lambda r: f"{r['rate']:g}",
        "DC share before": lambda r: f"{r['dc_share_before']:.1%}",
        "after": lambda r: f"{r['dc_share_after']:.1%}",
    }
    return [([error], rates, figures), (told, shares, [])]


def _pictures(
    images: list[Path],
    model: str,
    layer: str,
    size: Area | int | None,
    random_weights: int | None,
    device: str,
    output: Path,
    as_json: bool,
    quiet: bool,
) -> None:
    """Spectra of layers before and after ReLU, CReLU and AVR, a figure a picture and model."""
    nets = load_nets(model, layer, random_weights, device, quiet or as_json)
    if not quiet:
        for net in nets:
            tell_other_size(net, size, False)
    from reconstruct.analysis.spectrum.layer_spectra_2d import layer_spectra_2d
    from reconstruct.images.names import file_name
    from reconstruct.network.read_points import layer_list
    from reconstruct.report.figures.layer_spectra import image_spectra_figure

    chosen = [(net, layer_list(net, layer)) for net in nets]
    told: list[dict[str, Any]] = []
    figures: list[str] = []
    failures: set[str] = set()
    with progress(len(images) * len(nets), quiet or as_json, "analysing") as advance:
        for net, names in chosen:
            for batch in batches(images, net, names, size, False, quiet, failures):
                for item in batch:
                    picture = item.picture[None].to(net.mean.device)
                    found = [layer_spectra_2d(net, picture, name) for name in names]
                    target = output / file_name(item.stem, net.name, "spectrum", "png")
                    figures.append(write(image_spectra_figure(found, f"{item.stem}, {net.name}"), target))
                    about = {"what": "layer", "image": item.name, "model": net.name}
                    told += [{**about, **each.record(), "figure": figures[-1]} for each in found]
                    advance(1)
    columns: Columns = {
        f"DC of {name}": lambda r, key=key: f"{r['dc_share'][key]:.1%}"  # type: ignore[misc]
        for key, name in (
            ("responses", "z"), ("relu", "ReLU"), ("negative", "[-z]+"), ("sum", "|z|"), ("difference", "p - q")
        )
    }  # fmt: skip
    columns["energy ReLU keeps"] = lambda r: f"{r['energy']['relu']:.0%}"
    finish("spectrum.images", [(told, columns, figures)], output, as_json, quiet)
    if failures:
        raise typer.Exit(1)
