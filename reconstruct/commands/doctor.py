"""``reconstruct doctor``: what this installation consists of, what is optional, and what is wrong."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from reconstruct.commands.terminal import busy, number, printed


def doctor(
    gpu: Annotated[
        bool,
        typer.Option("--gpu", help="Hold the GPU against the CPU: equality, memory over a loop, speed."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Look over this installation: versions, device, threads, cache, optional packages, and what is wrong.

    For each optional package that is missing it says how it is installed. The exit status is 1 where something is
    wrong, and 0 otherwise; a package that is missing is not wrong. What it prints is made to be pasted into a report.
    """
    with busy("looking", as_json):
        from reconstruct.evaluation.installation import examine

        found = examine()
    if gpu:
        _check_gpu(found, as_json)
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        _told(found)
    if found["problems"]:
        raise typer.Exit(1)


def _told(found: dict[str, Any]) -> None:
    """The findings as text."""
    from rich.table import Table

    threads, machine, device, cache = (found[name] for name in ("threads", "machine", "device", "cache"))
    said = {
        "versions": ", ".join(f"{name} {version}" for name, version in found["versions"].items()),
        "Python": found["python"],
        "machine": f"{machine['processor']}, {machine['memory_gb']:g} GB, {machine['system']}",
        "device": device["auto"] if device["gpu"] is None else f"{device['auto']} ({device['gpu']})",
        "threads": _threads(threads),
        "cache": f"{cache['folder']}: {cache['files']} files, {cache['bytes'] / 1e6:,.1f} MB",
    }
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in said.items():
        table.add_row(name, text)
    printed.print(table)
    printed.print("\noptional packages")
    extras = Table(box=None, pad_edge=False, show_header=False)
    extras.add_column(no_wrap=True)
    extras.add_column(no_wrap=True)
    extras.add_column(overflow="fold")
    for each in found["extras"]:
        state = "missing" if each["missing"] else "broken" if each["broken"] else "installed"
        extras.add_row(f"  {each['name']}", state, each["purpose"])
    printed.print(extras)
    for each in found["extras"]:
        if each["missing"]:
            # On a line of its own, to be copied whole.
            printed.print(f"to add {each['name']} ({', '.join(each['missing'])}):\n  {each['install']}", soft_wrap=True)
    if found.get("gpu") is not None:
        _gpu_told(found["gpu"])
    printed.print()
    for problem in found["problems"]:
        printed.print(f"wrong: {problem}", soft_wrap=True)
    if not found["problems"]:
        printed.print("nothing is wrong")


def _check_gpu(found: dict[str, Any], silent: bool) -> None:
    """Add what a GPU gives beside the CPU, ``gpu``, None where there is none; and what is wrong with it."""
    with busy("holding the GPU against the CPU", silent):
        import torch

        from reconstruct.evaluation.gpu_check import check_gpu, lacking, problems

        missing = lacking()
        found["gpu"] = None if missing else check_gpu(torch.device("cuda"))
        found["problems"] += [missing] if missing else problems(found["gpu"])


def _gpu_told(gpu: dict[str, Any]) -> None:
    """The checks of a GPU as text."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, title=f"{gpu['device']} beside the CPU", title_justify="left")
    table.add_column("check", no_wrap=True)
    for heading in ("apart", "allowed", "CPU s", "GPU s", "times as fast"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for each in gpu["checks"]:
        cpu, own = (gpu["seconds"].get(each["name"], {}).get(place) for place in ("cpu", "gpu"))
        table.add_row(
            each["name"],
            number(each["measured"], ".2g"),
            number(each["allowed"], ".2g"),
            number(cpu, ".3f"),
            number(own, ".3f"),
            number(cpu / own if cpu and own else None, ".1f"),
            "agrees" if each["good"] else "DIFFERS",
        )
    printed.print()
    printed.print(table)


def _threads(threads: dict[str, Any]) -> str:
    """Threads by library, and the cores that there are for them."""
    parts = [f"torch {threads['torch']}", *(f"{each['library']} {each['threads']}" for each in threads["pools"])]
    quota = "no CPU quota" if threads["cpu_quota"] is None else f"a CPU quota of {threads['cpu_quota']:g} cores"
    allowed = threads["cores_of_this_process"]
    cores = f"{threads['cores']} cores" if allowed is None else f"{allowed} of {threads['cores']} cores are ours"
    variables = "".join(f", {name}={value}" for name, value in threads["variables"].items())
    return f"{', '.join(dict.fromkeys(parts))}; {cores}, {quota}{variables}"
