"""How an evaluation is shown on a terminal."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from nirvana.cli.output import Output, mean_and_sd, percent

_COLUMNS = ("arm", "test accuracy", "early stop", "untrained", "replicates", "failed", "cached")


def print_verdict(output: Output, verdict: dict[str, Any]) -> None:
    """The arms' table, the verdict with its reason, looks, tracks, badges and cost; evaluations of protocol 1
    have no looks, tracks, badges or cost in dense trainings."""
    if verdict["arms"]:
        output.table(_COLUMNS, [_row(verdict, arm) for arm in verdict["arms"]])
    print(f"{verdict['verdict']}: {verdict.get('reason', '')} (margin {percent(verdict['margin'], 1)})")
    for line in (_looks(verdict), *_tracks(verdict), _speed(verdict), _badges(verdict), _cost(verdict)):
        if line:
            print(line)


def _row(verdict: dict[str, Any], arm: str) -> tuple[Any, ...]:
    values = verdict["arms"][arm]
    stops, untrained = (verdict.get(name, {}).get(arm) for name in ("early_stop", "untrained"))
    failed = sum(verdict.get("failed", {}).get(arm, []))
    return (
        arm,
        mean_and_sd(values),
        f"{fmean(stops):.0f}" if stops else "",
        percent(fmean(untrained)) if untrained else "",
        len(values),
        failed,
        verdict.get("cached", {}).get(arm, 0),
    )


def _looks(verdict: dict[str, Any]) -> str:
    looks = [
        f"{look['verdict']} at {look['n']} (alpha {look['alpha']:g})" for look in verdict.get("looks", [])
    ]
    return f"looks: {', '.join(looks)}" if len(looks) > 1 else ""


def _tracks(verdict: dict[str, Any]) -> list[str]:
    tracks = (verdict.get("tracks") or {}).items()
    return [f"{name}: {track['verdict']}: {track['reason']}" for name, track in tracks]


def _speed(verdict: dict[str, Any]) -> str:
    speed, rate = verdict.get("speed"), verdict.get("trainability")
    if not speed or not rate:
        return ""
    said = f"early stop, dense / ticket: {speed['ratio']:.2f} {_interval(speed['interval'])}"
    return f"{said}; trains in {rate['count']} of {rate['of']} replicates {_interval(rate['interval'])}"


def _interval(bounds: list[float]) -> str:
    return f"[{bounds[0]:.2f}, {bounds[1]:.2f}]"


def _badges(verdict: dict[str, Any]) -> str:
    earned = [name for name, has in (verdict.get("badges") or {}).items() if has]
    return f"badges: {', '.join(earned)}" if earned else ""


def _cost(verdict: dict[str, Any]) -> str:
    cost = verdict.get("cost") or {}
    dense = cost.get("dense_trainings") or {}
    if dense.get("by_flops") is None:
        return ""
    said = f"cost: {cost['trainings']} trainings, as many operations as {dense['by_flops']:.1f} dense ones"
    seconds = dense.get("by_seconds")
    return said + (f", as many seconds as {seconds:.1f}" if seconds is not None else "")
