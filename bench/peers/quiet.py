"""Who else computed while we measured: a figure taken beside a compiler is no figure. Linux only."""

import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Others:
    """Processor share that other processes (and the hypervisor) took: 1.0 is one core all the time."""

    cores: float = 0.0


@contextmanager
def others():
    """Measures while the body runs. What our own process and its descendants take is not counted."""
    result = Others()
    begin, busy, ours = time.monotonic(), busy_ticks(), own_ticks()
    yield result
    ticks = (busy_ticks() - busy) - (own_ticks() - ours)
    result.cores = round(max(ticks / TICK / (time.monotonic() - begin), 0.0), 3)


def wait_until_quiet(cores_max: float = 0.1, seconds: float = 2.0, patience_s: float = 600.0) -> bool:
    """Waits until others took less than `cores_max` over `seconds`; False if that did not happen in time."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        with others() as seen:
            time.sleep(seconds)
        if seen.cores <= cores_max:
            return True
    return False


def busy_ticks() -> int:
    """user, nice, system, irq, softirq and steal, over all processors since boot."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    values = [int(field) for field in fields]
    return sum(values[index] for index in (0, 1, 2, 5, 6, 7))


def own_ticks() -> int:
    """This process, its running descendants, and the ended ones that were waited for."""
    parents, ticks = {}, {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(entry.name)] = int(fields[1])
        # utime, stime, and those of waited-for children.
        ticks[int(entry.name)] = sum(map(int, fields[11:15]))
    ours = {os.getpid()}
    grew = True
    while grew:
        children = {pid for pid, parent in parents.items() if parent in ours} - ours
        ours |= children
        grew = bool(children)
    return sum(ticks.get(pid, 0) for pid in ours)
