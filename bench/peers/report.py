"""Medians over the rounds, one table with ratios, and JSON."""

import statistics

# Nothing that others did to the machine may be in a figure: a run beside them is kept out of the medians.
OTHERS_CORES_MAX = 0.15


class Samples:
    """Figures by (workload, who), each with how much of the machine others took."""

    def __init__(self) -> None:
        self.runs: dict[tuple[str, str], list[dict]] = {}

    def add(self, workload: str, who: str, figures: dict, others_cores: float) -> None:
        figures = {key: value for key, value in figures.items() if isinstance(value, float | int)}
        self.runs.setdefault((workload, who), []).append(figures | {"others_cores": others_cores})

    def medians(self) -> list[dict]:
        rows = []
        for (workload, who), runs in self.runs.items():
            quiet = [run for run in runs if run["others_cores"] <= OTHERS_CORES_MAX]
            used = quiet or runs
            row = {"workload": workload, "who": who, "runs": len(used), "disturbed": not quiet}
            for key in used[0]:
                row[key] = statistics.median(run[key] for run in used)
            rows.append(row)
        return rows


def table(rows: list[dict], ours: str) -> str:
    """Rows by workload; the last column says how many times better `ours` is in the row's main figure."""
    lines = [("WORKLOAD", "WHO", "tokens/s", "TTFT p50 s", "TTFT p95 s", "ITL p50 ms", "RUNS", f"{ours} IS")]
    main = {row["workload"]: row for row in map(flat, rows) if row["who"] == ours}
    for row in map(flat, rows):
        best = main.get(row["workload"])
        ratio = "-"
        if best and row["who"] != ours:
            # A ratio with a disturbed run is no result.
            doubt = "?" if best["disturbed"] or row["disturbed"] else ""
            ratio = f"{best['rate'] / row['rate']:.2f}x{doubt}"
        runs = f"{row['runs']}{' (disturbed)' if row['disturbed'] else ''}"
        figures = [number(row.get(key), scale) for key, scale in COLUMNS]
        lines.append((row["workload"], row["who"], number(row["rate"], 1), *figures, runs, ratio))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


COLUMNS = [("ttft_p50_s", 1), ("ttft_p95_s", 1), ("itl_p50_s", 1000)]


def flat(row: dict) -> dict:
    """With its main figure as `rate`."""
    key = next(key for key in ("tokens_per_s", "decode", "prefill") if key in row)
    return row | {"rate": row[key]}


def number(value: float | None, scale: float) -> str:
    if value is None:
        return "-"
    value *= scale
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:.0f}"
