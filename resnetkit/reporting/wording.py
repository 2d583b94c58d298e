"""Numbers as the page writes them. Spaces inside them do not break."""


def percent(share: float) -> str:
    return f"{100 * share:.1f}\u00a0%"


def interval(ends: list[float]) -> str:
    """Of shares."""
    return f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}\u00a0%"


def count(number: float, noun: str = "") -> str:
    """1234 is 1,234; with a noun, 1 image or 2 images."""
    digits = f"{number:,.0f}"
    return f"{digits} {noun}{'s' * (digits != '1')}" if noun else digits


def short(number: float) -> str:
    """To three digits, with the unit of thousands, millions or billions."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if float(f"{number / size:.3g}") >= 1:
            return f"{number / size:.3g}\u00a0{unit}"
    return f"{number:g}"
