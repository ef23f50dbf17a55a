"""A small canvas of pixels with boxes, lines and letters, written as PNG with the standard library alone."""

import struct
import zlib
from collections.abc import Sequence
from itertools import pairwise

Colour = tuple[int, int, int]

GLYPH_WIDTH, GLYPH_HEIGHT = 5, 7
ADVANCE = 6  # pixels from one letter to the next, at scale 1

# The letters from space to tilde, five columns each, the lowest bit on top.
_FONT = bytes.fromhex(
    "0000000000" "00005f0000" "0007000700" "147f147f14" "242a7f2a12" "2313086462" "3649552250" "0005030000"
    "001c224100" "0041221c00" "14083e0814" "08083e0808" "0050300000" "0808080808" "0060600000" "2010080402"
    "3e5149453e" "00427f4000" "4261514946" "2141454b31" "1814127f10" "2745454539" "3c4a494930" "0171090503"
    "3649494936" "064949291e" "0036360000" "0056360000" "0814224100" "1414141414" "0041221408" "0201510906"
    "324979413e" "7e1111117e" "7f49494936" "3e41414122" "7f4141221c" "7f49494941" "7f09090901" "3e4149497a"
    "7f0808087f" "00417f4100" "2040413f01" "7f08142241" "7f40404040" "7f020c027f" "7f0408107f" "3e4141413e"
    "7f09090906" "3e4151215e" "7f09192946" "4649494931" "01017f0101" "3f4040403f" "1f2040201f" "3f4038403f"
    "6314081463" "0708700807" "6151494543" "007f414100" "0204081020" "0041417f00" "0402010204" "4040404040"
    "0001020400" "2054545478" "7f48444438" "3844444420" "384444487f" "3854545418" "087e090102" "0c5252523e"
    "7f08040478" "00447d4000" "2040443d00" "7f10284400" "00417f4000" "7c04180478" "7c08040478" "3844444438"
    "7c14141408" "081414187c" "7c08040408" "4854545420" "043f444020" "3c4040207c" "1c2040201c" "3c4030403c"
    "4428102844" "0c5050503c" "4464544c44" "0008364100" "00007f0000" "0041360800" "1008081008"
)  # fmt: skip


def text_width(text: str, scale: int = 2) -> int:
    """How many pixels a text takes."""
    return len(text) * ADVANCE * scale


class Canvas:
    """`width` × `height` pixels, white at first. What lies outside is not drawn. x grows rightwards, y downwards."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._rows = [bytearray(b"\xff" * 3 * width) for _ in range(height)]

    def box(self, x: int, y: int, width: int, height: int, colour: Colour, *, opacity: float = 1.0) -> None:
        """A filled rectangle; with an opacity below 1, what is beneath shines through."""
        left, right = max(x, 0), min(x + width, self.width)
        if left >= right:
            return
        for row in self._rows[max(y, 0) : max(min(y + height, self.height), 0)]:
            if opacity >= 1:
                row[3 * left : 3 * right] = bytes(colour) * (right - left)
                continue
            for channel, value in enumerate(colour):
                part = row[3 * left + channel : 3 * right : 3]
                row[3 * left + channel : 3 * right : 3] = bytes(round(old + (value - old) * opacity) for old in part)

    def line(self, x0: int, y0: int, x1: int, y1: int, colour: Colour, *, width: int = 2) -> None:
        """A straight line, `width` pixels thick (Bresenham)."""
        dx, dy = abs(x1 - x0), -abs(y1 - y0)
        step_x, step_y = 1 if x0 < x1 else -1, 1 if y0 < y1 else -1
        error = dx + dy
        while True:
            self.box(x0 - width // 2, y0 - width // 2, width, width, colour)
            if (x0, y0) == (x1, y1):
                return
            doubled = 2 * error
            if doubled >= dy:
                error += dy
                x0 += step_x
            if doubled <= dx:
                error += dx
                y0 += step_y

    def path(self, points: Sequence[tuple[int, int]], colour: Colour, *, width: int = 2) -> None:
        """Lines from point to point."""
        for (x0, y0), (x1, y1) in pairwise(points):
            self.line(x0, y0, x1, y1, colour, width=width)

    def text(self, x: int, y: int, text: str, colour: Colour = (60, 60, 60), *, scale: int = 2) -> None:
        """ASCII text with its upper left corner at (x, y); other letters become question marks."""
        for letter in text:
            code = ord(letter) - 32 if " " <= letter <= "~" else ord("?") - 32
            for column in range(GLYPH_WIDTH):
                bits = _FONT[code * GLYPH_WIDTH + column]
                for row in range(GLYPH_HEIGHT):
                    if bits >> row & 1:
                        self.box(x + column * scale, y + row * scale, scale, scale, colour)
            x += ADVANCE * scale

    def pixel(self, x: int, y: int) -> Colour:
        """The colour at (x, y)."""
        red, green, blue = self._rows[y][3 * x : 3 * x + 3]
        return red, green, blue

    def png(self) -> bytes:
        """The picture as a PNG file's bytes (8-bit RGB, no filter)."""

        def chunk(kind: bytes, data: bytes) -> bytes:
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

        header = struct.pack(">IIBBBBB", self.width, self.height, 8, 2, 0, 0, 0)
        pixels = zlib.compress(b"".join(b"\0" + row for row in self._rows), 9)
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
