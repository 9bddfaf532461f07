"""Numbers and settings as a page writes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from reconstruct.errors import cut
from reconstruct.images.names import shown
from reconstruct.inversion.result import in_words

LONGEST_NAME, LONGEST_TEXT = 90, 4_000
NOTHING = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"


def fixed(value: float | None, digits: int = 2) -> str:
    """The number with so many digits after the point, thousands apart."""
    return NOTHING if value is None else f"{value:,.{digits}f}".replace("-", MINUS)


def signed(value: float | None, digits: int = 2) -> str:
    """The number as from ``fixed``, with its sign; nothing that rounds to zero has one."""
    text = NOTHING if value is None else f"{value:+,.{digits}f}".replace("-", MINUS)
    return text if any(each in text for each in "123456789") else text.lstrip(f"+{MINUS}")


def figures(value: float | None) -> str:
    """The number with three significant digits, or whole above 100."""
    if value is None:
        return NOTHING
    if value and not 1e-3 <= abs(value) < 1e7:
        return f"{value:.2e}".replace("-", MINUS)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def whole(value: float | None) -> str:
    """A count, thousands apart."""
    return NOTHING if value is None else f"{value:,.0f}"


def percent(share: float | None) -> str:
    """A share in whole per cent."""
    return NOTHING if share is None else f"{100 * share:.0f} %"


def counted(number: int, one: str, many: str | None = None) -> str:
    """The number and what is counted: ``1 image``, ``1,305 images``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def percentile(found: Mapping[str, float | None], name: str, count: int, digits: int) -> str:
    """A percentile; where there are values and it is null, it is infinite."""
    return "∞" if count and found[name] is None else fixed(found[name], digits)


def mean_and_deviation(found: Mapping[str, float | None], digits: int) -> str:
    """The mean ± the sample standard deviation, as far as there are any."""
    mean = fixed(found["mean"], digits)
    return mean if found["std"] is None else f"{mean} ± {fixed(found['std'], digits)}"


def short(text: str, most: int = LONGEST_NAME) -> str:
    """The text in one printable line, without its middle where it is longer than so many characters."""
    return cut(shown(text), most)


def text(value: object) -> str:
    """The text of a setting, or of whatever else ``run.json`` holds."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return short(", ".join(map(text, value)), LONGEST_TEXT)
    return short(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), LONGEST_TEXT)


def flat(settings: object, prefix: str = "") -> dict[str, object]:
    """Nested settings by dotted names."""
    if not isinstance(settings, Mapping):
        return {prefix: settings}
    found: dict[str, object] = {}
    for name, value in settings.items():
        found |= flat(value, f"{prefix}.{name}" if prefix else str(name))
    return found


def differing(settings: list[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The settings that are not the same in all runs, by dotted name: each run's value as text."""
    each = [flat(one) for one in settings]
    names = dict.fromkeys(name for one in each for name in one)
    return {
        name: [text(one[name]) if name in one else NOTHING for one in each]
        for name in names
        if any(name not in one or one[name] != each[0].get(name) for one in each)
    }


def moment(value: object) -> str:
    """A time as ISO 8601, to the minute."""
    try:
        return datetime.fromisoformat(str(value)).strftime("%Y-%m-%d %H:%M %Z").strip()
    except ValueError:
        return text(value)


def duration(seconds: float | None) -> str:
    """Seconds as a person says them."""
    if seconds is None:
        return NOTHING
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


FILTERS: dict[str, Callable[..., str]] = {
    each.__name__: each
    for each in (
        fixed, signed, figures, whole, percent, counted, percentile, mean_and_deviation, short, text, moment, duration,
        in_words,
    )
}  # fmt: skip
