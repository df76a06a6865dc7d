"""Trials handed to Ray: on this machine, or on a cluster that is running. What runs when and where is Ray's business.

A trial runs in a process of its own. One that needs a float network is given the future of its training, so Ray begins it
when that is there. A process that dies is started anew, and its trial goes on from its last checkpoint.
"""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from binarize.errors import BinarizeError, SourceError, StoppedError, UsageError
from binarize.studies.grid.trial import Resources, Trial
from binarize.trust import trusted_words, trusting

__all__ = ["failed", "run_trials"]

# Of a process that dies: killed by somebody, or by the system for want of memory.
_MOST_RETRIES = 2
# Results are small; what Ray shares between processes by itself would be a third of the memory.
_STORE_BYTES = 100 * 1024**2
# Read when ray is imported and started: it sends statistics home unless told not to, and makes its processes so nice that
# beside other work they come to nothing.
_SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}


def run_trials(
    trials: Sequence[Trial],
    study: Path,
    resources: Resources,
    listen: Callable[[Mapping[str, Any]], None],
    *,
    address: str | None = None,
    jobs: int | None = None,
) -> None:
    """Run the trials, and tell `listen` the result of each when it is there; one that fails is a result too.

    `jobs` limits how many run at once on this machine.

    Raises: UsageError where ray or the resources are missing, StoppedError where a signal asked for an end.
    """
    ray = _imported()
    with _connected(ray, resources, address, jobs), _stoppable():
        task = ray.remote(
            num_cpus=resources.cpus,
            num_gpus=resources.gpus,
            max_retries=_MOST_RETRIES,
            # So that nothing of one trial is left for another.
            max_calls=1,
        )(_run)
        futures: dict[str, Any] = {}
        said = trusted_words()
        for trial in trials:
            needed = None if trial.base is None else futures.get(trial.base.id)
            futures[trial.id] = task.remote(trial, str(study), resources, needed, said)
        running = {futures[trial.id]: trial for trial in trials}
        stopped = 0
        while running:
            done, _ = ray.wait(list(running), num_returns=1)
            trial = running.pop(done[0])
            result = _result(ray, futures, trial)
            if result is None:
                stopped += 1
            else:
                listen(result)
    if stopped:
        raise StoppedError(f"{stopped} trials were stopped; the same command goes on with them")


def failed(trial: Trial, reason: str) -> dict[str, Any]:
    """What is recorded of a trial that has no result."""
    return {**trial.to_json(), "state": "failed", "reason": reason}


def _run(
    trial: Trial, study: str, resources: Resources, needed: object, said: tuple[str, ...]
) -> dict[str, Any]:
    """One trial, in a process of Ray's, which begins it when the float network that it `needed` is there.

    `said` is what the user's word covers.
    """
    from binarize.studies.run import run_trial

    if not Path(study).is_dir():
        host = os.uname().nodename if hasattr(os, "uname") else "this machine"
        raise SourceError(
            f"{host} does not see the folder {study}; the machines of a cluster need a shared one"
        )
    with trusting(*said):
        return run_trial(trial, Path(study), resources)


def _result(ray: ModuleType, futures: Mapping[str, Any], trial: Trial) -> dict[str, Any] | None:
    """What a trial came to; None where a signal stopped it, or the float network that it needs."""
    reason = _reason(ray, futures[trial.id])
    if reason is None:
        found: dict[str, Any] = ray.get(futures[trial.id])
        return found
    if trial.base is not None and trial.base.id in futures:
        before = _reason(ray, futures[trial.base.id])
        if before is not None:
            reason = f"its float network {trial.base.name} failed" if before else ""
    return failed(trial, reason) if reason else None


def _reason(ray: ModuleType, future: object) -> str | None:
    """Why a trial failed, the empty text where a signal stopped it; None where it did not fail."""
    try:
        ray.get(future)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, StoppedError):
            return ""
        return str(cause) if isinstance(cause, BinarizeError) else f"{type(cause).__name__}: {cause}"
    except ray.exceptions.RayError as error:
        return f"its process ended: {str(error).strip().splitlines()[0]}"
    return None


def _imported() -> Any:
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "ray":
            raise
        raise UsageError(
            "a study is run by Ray, which is not installed: pip install 'torch-binarize[study]'"
        ) from error
    return ray


@contextmanager
def _connected(
    ray: ModuleType, resources: Resources, address: str | None, jobs: int | None
) -> Iterator[None]:
    """Inside, Ray runs; what was started here is ended afterwards."""
    if ray.is_initialized():
        _check_there(ray, resources)
        yield
        return
    # Ray itself looks there.
    address = address or os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        cpus = None if jobs is None else math.ceil(max(1, jobs) * resources.cpus)
        options |= {"include_dashboard": False, "object_store_memory": _STORE_BYTES, "num_cpus": cpus}
    elif jobs is not None:
        raise UsageError(
            "jobs limits what runs at once on this machine; a cluster that is running has its own limits"
        )
    try:
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UsageError(
            f"ray does not start: {str(error).splitlines()[0]}\n  ray status tells of a cluster"
        ) from error
    try:
        _check_there(ray, resources)
        yield
    finally:
        ray.shutdown()


@contextmanager
def _stoppable() -> Iterator[None]:
    """Inside, SIGTERM interrupts as SIGINT does, and whoever interrupts is told how to go on."""
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    if in_main:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        raise StoppedError("interrupted; the same command goes on with what is unfinished") from None
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)


def _check_there(ray: ModuleType, resources: Resources) -> None:
    """Ray would wait for ever for what no machine has."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for kind, wanted in (("CPU", resources.cpus), ("GPU", resources.gpus)):
        most = max((machine.get(kind, 0) for machine in machines), default=0)
        if wanted > most:
            raise UsageError(
                f"a trial asks for {wanted:g} {kind}s, but no machine that Ray knows has more than {most:g}\n"
                f"  lower machine: {{{kind.lower()}s: ...}} in the grid, or --{kind.lower()}s"
            )
