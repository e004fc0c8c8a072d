"""Write numbers the way a reader compares them: one count of decimals a column, a true minus sign, known units."""

from __future__ import annotations

import math
from collections.abc import Iterable

MISSING = "–"
_BYTES = 1024.0


def series_digits(values: Iterable[float], significant: int = 3) -> int:
    """Return the decimals that give a column's median size `significant` figures: 0 to 5."""
    sizes = sorted(abs(value) for value in values if math.isfinite(value) and value != 0)
    if not sizes:
        return significant - 1
    return min(5, max(0, significant - 1 - math.floor(math.log10(sizes[len(sizes) // 2]))))


def number(value: float, digits: int, sign: bool = False) -> str:
    """Write a number with a true minus sign and no −0; thousands are set apart from 10,000 on."""
    if math.isnan(value):
        return MISSING
    rounded = round(value, digits) + 0.0
    grouped = "," if abs(rounded) >= 10_000 else ""
    return f"{rounded:{'+' if sign else ''}{grouped}.{digits}f}".replace("-", "−")


def plus_minus(mean: float, sd: float = math.nan, digits: int | None = None, sign: bool = False) -> str:
    """Write mean ± sd; the sd is left out when there is none."""
    digits = series_digits([mean]) if digits is None else digits
    text = number(mean, digits, sign)
    return text if math.isnan(sd) or math.isnan(mean) else f"{text} ± {number(sd, digits)}"


def scaled(unit: str, values: Iterable[float]) -> tuple[float, str]:
    """Return the factor and the unit that make a column readable: bytes as MiB or GiB, joules as kJ, shares as %."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    if unit == "B":
        return (_BYTES**-3, "GiB") if largest >= _BYTES**3 else (_BYTES**-2, "MiB")
    if unit == "share":
        return 100.0, "%"
    if unit == "J" and largest >= 10_000:
        return 1e-3, "kJ"
    if unit == "tokens" and largest >= 1e6:
        return 1e-6, "million tokens"
    return 1.0, unit


def duration(seconds: float) -> str:
    """Write seconds for people."""
    if math.isnan(seconds):
        return MISSING
    if seconds < 120:
        return f"{number(seconds, series_digits([seconds]))} s"
    if seconds < 7200:
        return f"{number(seconds / 60, 1)} min"
    return f"{number(seconds / 3600, 1)} h"
