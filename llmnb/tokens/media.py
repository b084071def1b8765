"""Tokens of images and PDFs, from their size.

An image is cut into patches of 28 x 28 pixels, one token each, after it was shrunk to fit (the API's documentation,
"Vision"): up to version 4.6 to 1,568 pixels on the long edge and 1,568 patches, from 4.7 on to 2,576 and 4,784. A
recorded image of 166 x 282 pixels cost 71 tokens with its frame: 6 x 11 patches and five.
"""

from __future__ import annotations

import binascii
import re
import struct
import zlib
from base64 import b64decode
from math import ceil, sqrt

from llmnb.messages import models

PATCH_PX = 28
IMAGE_FRAME_TOKENS = 5
HIGH_RESOLUTION_SINCE = (4, 7)
PDF_PAGE_TEXT_TOKENS = 600
"""Text of an ordinary page; the documentation ("PDF support") says 1,500 to 3,000 tokens a page with its image."""

_HEADER_CHARS = 400_000
"""Base64 characters read to find an image's size: in a JPEG it may stand behind a large preview."""
_PAGE = re.compile(rb"/Type\s*/Page(?![a-zA-Z])")
_STREAM = re.compile(rb"/ObjStm.{0,400}?stream\r?\n", re.DOTALL)
_PAGE_PX = (1275, 1650)  # a letter page at 150 dpi


def most_image_tokens(model: str) -> int:
    """The most that one image can cost."""
    return _limits(model)[1] + IMAGE_FRAME_TOKENS


def image_tokens(data: str, model: str) -> int | None:
    """Tokens of an image given in base64; None when its size cannot be read."""
    size = image_size(_decoded(data[:_HEADER_CHARS]))
    return None if size is None else patches(*size, model) + IMAGE_FRAME_TOKENS


def patches(width: int, height: int, model: str) -> int:
    """Patches of an image of that many pixels, as the model sees it."""
    edge, most = _limits(model)
    scale = min(1.0, edge / max(width, height))
    if _grid(width, height, scale) > most:
        scale = min(scale, sqrt(most * PATCH_PX**2 / (width * height)))
        while _grid(width, height, scale) > most:
            scale *= 0.99
    return _grid(width, height, scale)


def _grid(width: int, height: int, scale: float) -> int:
    return max(1, ceil(width * scale / PATCH_PX)) * max(1, ceil(height * scale / PATCH_PX))


def _limits(model: str) -> tuple[int, int]:
    version = models.facts(model).version
    return (1568, 1568) if version is not None and version < HIGH_RESOLUTION_SINCE else (2576, 4784)


def image_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a PNG, GIF, WebP or JPEG in pixels, from its first bytes."""
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return struct.unpack(">II", data[16:24])
        if data.startswith(b"GIF8"):
            return struct.unpack("<HH", data[6:10])
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp_size(data)
        return _jpeg_size(data) if data.startswith(b"\xff\xd8") else None
    except (struct.error, IndexError):
        return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", data[26:30])
        return width & 0x3FFF, height & 0x3FFF
    bits = int.from_bytes(data[21:25], "little")
    return ((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1) if kind == b"VP8L" else None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def pdf_tokens(data: str, model: str) -> int:
    """Tokens of a PDF given in base64: for every page its picture and the text of an ordinary page."""
    return pdf_pages(_decoded(data)) * (patches(*_PAGE_PX, model) + PDF_PAGE_TEXT_TOKENS)


def pdf_pages(data: bytes) -> int:
    """Pages of a PDF, also where its objects are packed into streams; at least 1."""
    found = len(_PAGE.findall(data))
    for stream in _STREAM.finditer(data):
        unpacked = zlib.decompressobj()
        try:
            found += len(_PAGE.findall(unpacked.decompress(data[stream.end() :], 10_000_000)))
        except zlib.error:
            continue
    return max(1, found)


def _decoded(data: str) -> bytes:
    try:
        return b64decode(data[: len(data) // 4 * 4])
    except (binascii.Error, ValueError):
        return b""
