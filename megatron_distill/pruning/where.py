"""Which layers leave: the layouts of arXiv:2305.14864 (v1 Table 5: nine, v2 Table 5: five) and explicit lists.

The papers name the layouts and draw them; the index sets are our reading of the names. Layer 0 and the last layer
always stay.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable

from megatron_distill.config.error import ConfigError

Layout = Callable[[int, int], list[int]]
LAYOUTS: dict[str, Layout] = {}
"""From a name to a function of (layers, layers to remove) that gives 0-based indices."""


def layout(name: str) -> Callable[[Layout], Layout]:
    """Register a layer-choice rule under its name on the command line."""

    def add(rule: Layout) -> Layout:
        LAYOUTS[name] = rule
        return rule

    return add


@layout("max-gap")
def max_gap(layers: int, removed: int) -> list[int]:
    """Evenly spaced over 1 .. layers - 2: neighbouring removed layers are as far apart as can be."""
    if removed == 1:
        return [(layers - 1) // 2]
    span, steps = layers - 3, removed - 1
    return [1 + (2 * i * span + steps) // (2 * steps) for i in range(removed)]  # rounds halves up


@layout("input")
def input_side(layers: int, removed: int) -> list[int]:
    """The first after layer 0."""
    return list(range(1, removed + 1))


@layout("output")
def output_side(layers: int, removed: int) -> list[int]:
    """The last before the last layer."""
    return list(range(layers - 1 - removed, layers - 1))


@layout("both")
def both_sides(layers: int, removed: int) -> list[int]:
    """Half at the input (the larger half), half at the output."""
    return input_side(layers, removed - removed // 2) + output_side(layers, removed // 2)


@layout("middle")
def middle(layers: int, removed: int) -> list[int]:
    """Centred."""
    first = (layers - removed) // 2
    return list(range(first, first + removed))


@layout("alt-input")
def alternate_input(layers: int, removed: int) -> list[int]:
    """Every second layer from the input: 1, 3, 5, ..."""
    return list(range(1, 2 * removed, 2))


@layout("alt-output")
def alternate_output(layers: int, removed: int) -> list[int]:
    """Every second layer from the output: layers - 2, layers - 4, ..."""
    return list(range(layers - 2, layers - 2 - 2 * removed, -2))


@layout("alt-both")
def alternate_both(layers: int, removed: int) -> list[int]:
    """Every second layer, half from either side."""
    return alternate_input(layers, removed - removed // 2) + alternate_output(layers, removed // 2)


@layout("alt-middle")
def alternate_middle(layers: int, removed: int) -> list[int]:
    """Every second layer outwards from the centre: layers/2 - 1, - 3, ... and layers/2, + 2, ..."""
    left, right = removed - removed // 2, removed // 2
    centre = layers // 2
    return [centre - 1 - 2 * i for i in range(left)] + [centre + 2 * i for i in range(right)]


def layers_to_remove(layout: str, num_layers: int, num_removed: int) -> tuple[int, ...]:
    """Sorted 0-based indices of the layers that leave a model of `num_layers`.

    `layout` is a name, or a list such as "1,3,5-8" (then `num_removed` is 0 or agrees with it).

    Raises:
        ConfigError: an unknown name, more layers than can go, or a list that is not one.
    """
    if is_list(layout):
        return _listed(layout, num_layers, num_removed)
    if layout not in LAYOUTS:
        near = difflib.get_close_matches(layout, LAYOUTS, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(LAYOUTS)}, and lists such as 1,3,5-8"
        raise ConfigError(f"--pruning-layout {layout} is not known; {hint}")
    if not 1 <= num_removed <= num_layers - 2:
        raise ConfigError(
            f"--pruning-num-layers {num_removed} must be between 1 and {num_layers - 2}: "
            f"of {num_layers} layers the first and the last stay"
        )
    indices = sorted(LAYOUTS[layout](num_layers, num_removed))
    if len(set(indices)) < num_removed or indices[0] < 1 or indices[-1] > num_layers - 2:
        raise ConfigError(
            f"--pruning-layout {layout} cannot remove {num_removed} of {num_layers} layers and keep the first and the "
            "last; remove fewer, or take max-gap, input, output, both or middle"
        )
    return tuple(indices)


def is_list(layout: str) -> bool:
    """Whether a layout is a list of layers, not a name."""
    return re.match(r"[0-9]", layout) is not None


def _listed(text: str, num_layers: int, num_removed: int) -> tuple[int, ...]:
    indices: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise ConfigError(f"--pruning-layout {text}: {part!r} is neither a layer nor a range such as 5-8")
        indices += range(first, min(last, num_layers) + 1)  # what lies beyond is refused below
        if last > num_layers:
            indices.append(last)
    outside = [i for i in indices if not 1 <= i <= num_layers - 2]
    if outside or len(set(indices)) < len(indices):
        raise ConfigError(
            f"--pruning-layout {text} must name each layer once, between 1 and {num_layers - 2}: "
            f"of {num_layers} layers the first and the last stay"
        )
    if num_removed not in (0, len(indices)):
        raise ConfigError(f"--pruning-layout {text} names {len(indices)} layers, --pruning-num-layers {num_removed}")
    return tuple(sorted(indices))
