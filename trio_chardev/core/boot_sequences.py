"""Sequences that have names: how boards are reset, and got into their boot loaders.

On the wires of an adaptor's TTL side DTR and RTS are inverted: *on* pulls the pin low.

*ESP32 and ESP8266*, with the usual two transistors: DTR alone on pulls IO0 low, RTS alone on pulls EN
low, and both on or both off pull nothing. The chip looks at IO0 when EN rises: low means boot loader.

    esp32-boot       time ms   DTR   RTS
                     0         off   off
                     0         on    on     from here IO0 can't be low while EN rises too early
                     0         off   on     EN low: in reset
                     100       on    off    EN high, IO0 low: it starts the boot loader
                     150       off   off    IO0 high

``esp32-boot-classic`` leaves out the first two steps, and holds IO0 for 550 ms, for boards with a large
capacitor at EN. ``esp32-usb-jtag-boot`` is for the chip's own USB port (ESP32-C3, S3 and later), which
has no transistors: DTR alone on asks for the boot loader, RTS alone on resets, and both off forget
what was asked for, so it goes from one to the other by way of both on. ``esp32-reset`` starts the
program. (These are the edges of Espressif's esptool.)

*STM32*, with NRST at DTR and BOOT0 at RTS, wired straight: the chip looks at BOOT0 when NRST rises,
and high means the boot loader in ROM (AN2606).

    stm32-boot       time ms   DTR   RTS
                     0         on    off    NRST low, BOOT0 high
                     100       off   off    NRST high: it starts the boot loader
                     200                    it is ready

``stm32-boot-inverted`` is for boards with an inverter before BOOT0, ``stm32-boot-swapped`` for those
with NRST at RTS and BOOT0 at DTR. ``stm32-reset`` and its kin start the program, by BOOT0 low.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from trio_chardev.core.line_sequence import LineStep
from trio_chardev.errors import OptionsError

SequenceName = Literal[
    "esp32-boot",
    "esp32-boot-classic",
    "esp32-usb-jtag-boot",
    "esp32-reset",
    "stm32-boot",
    "stm32-boot-inverted",
    "stm32-boot-swapped",
    "stm32-reset",
    "stm32-reset-inverted",
    "stm32-reset-swapped",
]


def _lines(dtr: bool, rts: bool, ms: int = 0) -> LineStep:
    return LineStep(dtr=dtr, rts=rts, pause_us=ms * 1000)


ON, OFF = True, False

SEQUENCES: Final[Mapping[SequenceName, tuple[LineStep, ...]]] = {
    "esp32-boot": (
        _lines(OFF, OFF),
        _lines(ON, ON),
        _lines(OFF, ON, 100),
        _lines(ON, OFF, 50),
        _lines(OFF, OFF),
    ),
    "esp32-boot-classic": (
        _lines(OFF, ON, 100),
        _lines(ON, OFF, 550),
        _lines(OFF, OFF),
    ),
    "esp32-usb-jtag-boot": (
        _lines(OFF, OFF, 100),
        _lines(ON, OFF, 100),
        _lines(ON, ON),
        _lines(OFF, ON, 100),
        _lines(OFF, OFF),
    ),
    "esp32-reset": (_lines(OFF, ON, 100), _lines(OFF, OFF)),
    "stm32-boot": (_lines(ON, OFF, 100), _lines(OFF, OFF, 100)),
    "stm32-boot-inverted": (_lines(ON, ON, 100), _lines(OFF, ON, 100)),
    "stm32-boot-swapped": (_lines(OFF, ON, 100), _lines(OFF, OFF, 100)),
    "stm32-reset": (_lines(ON, ON, 100), _lines(OFF, ON, 100)),
    "stm32-reset-inverted": (_lines(ON, OFF, 100), _lines(OFF, OFF, 100)),
    "stm32-reset-swapped": (_lines(ON, ON, 100), _lines(ON, OFF, 100)),
}
"""The steps of each."""


def steps_of(name: str) -> tuple[LineStep, ...]:
    """The steps of the sequence *name*. Raises OptionsError if there is none of that name."""
    for known, steps in SEQUENCES.items():
        if known == name:
            return steps
    raise OptionsError(f"there is no sequence '{name}', only {', '.join(SEQUENCES)}")
