"""Breaks a text of a drawing into lines."""

from __future__ import annotations

import re
from collections.abc import Callable

from matplotlib.text import Text

LEAST = 5.5  # points, below which no text is made smaller


def wrap(text: Text, room: float, lines: int = 3) -> bool:
    """Break a text at spaces outside mathematics so that it takes no more than `room` pixels along its lines.

    Where the lines do not suffice its letters are made smaller, but not below :data:`LEAST`.

    Returns
    -------
    Whether anything was changed.
    """
    upright = text.get_rotation() == 90
    own = text.get_text()

    def length(candidate: str) -> float:
        text.set_text(candidate)
        box = text.get_window_extent()
        return box.height if upright else box.width

    wide = length(own) > room
    if wide:
        wrapped = [line for old in own.split("\n") for line in _broken(old, room, length)]
        own = "\n".join(wrapped)
        while (length(own) > room or len(wrapped) > lines) and text.get_fontsize() > LEAST:
            smaller = max(text.get_fontsize() - 0.5, LEAST)
            text.set_fontsize(smaller)
            if len(wrapped) > lines:
                lines = len(wrapped)
    text.set_text(own)
    return wide


def _broken(line: str, room: float, length: Callable[[str], float]) -> list[str]:
    """Break one line into as few as its words allow."""
    words, wrapped, begun = _words(line), [], ""
    for word in words:
        longer = f"{begun} {word}".strip()
        if begun and length(longer) > room:
            wrapped.append(begun)
            begun = word
        else:
            begun = longer
    return _balanced([*wrapped, begun], words, length)


def _balanced(wrapped: list[str], words: list[str], length: Callable[[str], float]) -> list[str]:
    """Of two lines, move the break to where they are most alike; a comma or colon before it is a better place."""
    if len(wrapped) != 2:
        return wrapped
    widest = max(map(length, wrapped))

    def cost(place: int) -> float:
        parts = " ".join(words[:place]), " ".join(words[place:])
        longest = max(map(length, parts))
        return longest + (1e6 if longest > widest * 1.001 else 0) - (0.3 * widest if parts[0][-1] in ",:" else 0)

    places = range(1, len(words))
    best = min(places, key=cost)
    return [" ".join(words[:best]), " ".join(words[best:])]


def _words(text: str) -> list[str]:
    """Divide at spaces outside mathematics."""
    return re.findall(r"(?:\$[^$]*\$|[^\s$])+", text)
