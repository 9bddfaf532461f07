"""The engine of several processes or machines: Ray Data, with the network once an actor.

Images are read by tasks, wherever there is room, and inverted by actors, each of which gets the network once. A batch
is a block of Ray Data's: where an actor is killed, Ray starts another and gives it that batch again.
"""

from __future__ import annotations

import copy
import logging
import math
import os
import re
import socket
from collections.abc import Generator
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy
import pyarrow
import torch

from reconstruct.errors import CallError, ReconstructError
from reconstruct.evaluation.batch import Item, Job, Rows, evaluate_batch, read
from reconstruct.evaluation.results import SCHEMA
from reconstruct.evaluation.run import Batches
from reconstruct.extras import install_hint
from reconstruct.images.files import quiet_pillow
from reconstruct.images.sets import Source
from reconstruct.network.protocol import AnyNetwork
from reconstruct.user_function import current_folder_importable


def start(address: str | None, workers: int | None, cpus: int, gpus: float | None) -> tuple[int, float]:
    """Connect to a cluster, or start one on this machine.

    Parameters
    ----------
    address : where a running cluster is; ``auto`` for the one that this machine belongs to; None starts one that ends
        with this process.
    workers : how many workers; default as many as the cluster has room for.
    cpus, gpus : the cores and GPUs of each worker; ``gpus`` None is 1 where the cluster has any.

    Returns
    -------
    The number of workers, and the GPUs of each.

    Raises
    ------
    CallError : Ray is not installed, there is no such cluster, or it has no room for so many workers.
    """
    try:
        import ray
    except ImportError as error:
        raise CallError(f"--engine ray needs Ray, which is not installed: {install_hint('ray')}") from error
    # Nothing is sent to Ray's makers unless the user has said so.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray Data's actors make Ray's core print an error that is a note on constructor arguments, at each start.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    _reach(address)
    try:
        ray.init(
            address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False, ignore_reinit_error=True
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise CallError(f"Ray finds no cluster at {address or 'this machine'}: {error}") from error
    there = ray.cluster_resources()
    if gpus is None:
        gpus = 1.0 if there.get("GPU", 0) else 0.0
    room = math.floor(min(there.get("CPU", 0) / cpus, there.get("GPU", 0) / gpus if gpus else math.inf))
    if room < (workers or 1):
        has = f"{there.get('CPU', 0):g} cores and {there.get('GPU', 0):g} GPUs"
        raise CallError(
            f"{workers or 1} workers of {cpus} cores and {gpus:g} GPUs each do not fit: the cluster has {has}"
        )
    return workers or room, gpus


def _reach(address: str | None) -> None:
    """Find out at once whether something is at an address: Ray itself tries for many minutes.

    Raises
    ------
    CallError : nothing is there.
    """
    there = re.fullmatch(r"(?:ray://)?\[?(.+?)\]?:(\d+)", address or "")
    if there is None:
        return
    try:
        socket.create_connection((there[1], int(there[2])), timeout=10).close()
    except OSError as error:
        raise CallError(f"Ray finds no cluster at {address}: {error.strerror or error}") from error


def on_ray(
    net: AnyNetwork, source: Source, batches: Batches, job: Job, *, workers: int, cpus: int, gpus: float
) -> Generator[Rows, None, None]:
    """The engine of several processes or machines: rows batch by batch, in whatever order they are done.

    Parameters
    ----------
    workers, cpus, gpus : how many actors, and the cores and GPUs of each; see ``start``.

    Raises
    ------
    ReconstructError : Ray gives up, as where a worker is killed again and again.
    """
    import ray

    if not batches:
        return
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    shared = ray.put((copy.deepcopy(net).to("cpu"), source, job))
    numbers = [{"indices": list(batch)} for batch in batches]
    pipeline = (
        # As many blocks as batches, and None for a block whole, all the way.
        ray.data.from_items(numbers, override_num_blocks=len(numbers))
        # Reading needs little, and a core of its own would take one from an actor. Without a limit Ray would start a
        # process for every batch that it can hold.
        .map_batches(
            _read, fn_args=(shared,), batch_size=None, batch_format="pyarrow",
            compute=ray.data.TaskPoolStrategy(size=workers), num_cpus=0,
        )
        .map_batches(
            _Actor, fn_constructor_args=(shared, cpus, gpus > 0), batch_size=None, batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=workers), num_cpus=cpus, num_gpus=gpus,
        )
    )  # fmt: skip
    # There by now: Ray Data sets up its logging when it is first used. Its files have everything all the same.
    for handler in logging.getLogger("ray.data").handlers:
        if handler.get_name() == "console":
            handler.setLevel(logging.ERROR)
    try:
        for table in pipeline.iter_batches(batch_size=None, batch_format="pyarrow"):
            yield table.to_pylist()
    except ray.exceptions.RayError as error:
        raise ReconstructError(f"Ray gave up: {error}") from error


PICTURED = pyarrow.schema(
    [*SCHEMA, *(pyarrow.field(name, pyarrow.binary()) for name in ("original", "reconstruction"))]
)
"""Columns of a row with the pictures that come with it."""

ITEMS = pyarrow.schema(
    [
        pyarrow.field("index", pyarrow.int64()),
        *(pyarrow.field(name, pyarrow.string()) for name in ("name", "error")),
        pyarrow.field("shape", pyarrow.list_(pyarrow.int64())),
        pyarrow.field("pixels", pyarrow.large_binary()),
    ]
)
"""Columns of an ``Item`` on its way through Ray's object store; ``shape`` and ``pixels`` are null after an error."""


def _read(batch: pyarrow.Table, shared: Any) -> pyarrow.Table:
    net, source, job = _fetched(shared)
    indices = chain.from_iterable(batch["indices"].to_pylist())
    with quiet_pillow():
        items = read(source, list(indices), net, job)
    return pyarrow.Table.from_pylist(
        [
            {
                "index": item.index,
                "name": item.name,
                "error": item.error,
                "shape": None if item.pixels is None else list(item.pixels.shape),
                "pixels": None if item.pixels is None else item.pixels.tobytes(),
            }
            for item in items
        ],
        schema=ITEMS,
    )


class _Actor:
    """The network in a process of its own."""

    def __init__(self, shared: Any, cpus: int, gpu: bool) -> None:
        net, _, self.job = _fetched(shared)
        torch.set_num_threads(cpus)
        self.net = net.to("cuda" if gpu else "cpu")

    def __call__(self, batch: pyarrow.Table) -> pyarrow.Table:
        items = [
            Item(
                each["index"],
                each["name"],
                None if each["shape"] is None else numpy.frombuffer(each["pixels"], numpy.uint8).reshape(each["shape"]),
                each["error"],
            )
            for each in batch.to_pylist()
        ]
        schema = PICTURED if self.job.thumbnails else SCHEMA
        # As on the command line: a method of the user's may import its neighbours when it is called.
        with current_folder_importable():
            rows = evaluate_batch(self.net, items, self.job)
        return pyarrow.Table.from_pylist(rows, schema=schema)


@lru_cache(maxsize=1)
def _fetched(shared: Any) -> tuple[AnyNetwork, Source, Job]:
    """What every task and actor needs, fetched once in a process."""
    import ray

    return ray.get(shared)
