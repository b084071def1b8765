"""Tokens of images and PDFs."""

from __future__ import annotations

import io
import zlib
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from llmnb.tokens import media

OLD, NEW = "claude-sonnet-4-5", "claude-opus-5-5"


def image(kind: str, width: int, height: int, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
@pytest.mark.parametrize("size", [(1, 1), (640, 481), (3000, 200)])
def test_sizes_are_read_from_the_file(kind: str, size: tuple[int, int]) -> None:
    """Width and height of every kind that the API takes, read without decoding the image."""
    assert media.image_size(image(kind, *size)) == size


def test_sizes_of_the_other_forms_of_webp() -> None:
    """Lossless and extended WebP have headers of their own."""
    assert media.image_size(image("WEBP", 333, 222, lossless=True)) == (333, 222)
    file = io.BytesIO()
    Image.new("RGBA", (320, 200), (1, 2, 3, 4)).save(file, "WEBP")  # transparency makes it an extended one
    assert media.image_size(file.getvalue()) == (320, 200)


def test_a_jpeg_with_a_preview_before_its_size() -> None:
    """Segments before the size, such as EXIF with a preview, are skipped."""
    assert media.image_size(image("JPEG", 70, 50, exif=b"Exif\0\0" + b"\xff\xd8\xff\xc0" * 10_000)) == (70, 50)


@given(st.binary(max_size=200))
def test_broken_images_have_no_size(data: bytes) -> None:
    """No file makes it raise."""
    for head in (b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF0000WEBPVP8 ", b"RIFF0000WEBPVP8L", b"\xff\xd8\xff\xe0"):
        media.image_size(head + data)


# the API's documentation ("Vision") and public measurements of what a picture costs
@pytest.mark.parametrize(
    ("width", "height", "old", "new"),
    [
        (200, 200, 64, 64),
        (256, 256, 100, 100),
        (1024, 1024, 1369, 1369),
        (1920, 1080, 1560, 2691),
    ],
)
def test_patches_of_an_image(width: int, height: int, old: int, new: int) -> None:
    """A token for each 28 pixels square, after shrinking to what the generation of the model sees."""
    assert (media.patches(width, height, OLD), media.patches(width, height, NEW)) == (old, new)


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_no_image_costs_more_than_the_most(width: int, height: int) -> None:
    """However large or odd, an image costs between one patch and the model's maximum."""
    for model in (OLD, NEW):
        assert 1 <= media.patches(width, height, model) < media.most_image_tokens(model)


def test_an_image_in_a_request() -> None:
    """Counted from its base64; without a readable size there is no count."""
    assert media.image_tokens(b64encode(image("PNG", 166, 282)).decode(), OLD) == 71  # as recorded
    assert media.image_tokens("bm8gaW1hZ2U=", OLD) is None
    assert media.image_tokens("%%%", OLD) is None


def test_pages_of_a_pdf() -> None:
    """Page objects are counted, and the node that holds them is not."""
    data = b"%PDF-1.4\n1 0 obj<</Type /Pages /Count 2>>\n2 0 obj<</Type/Page>>\n3 0 obj<</Type /Page /Parent 1 0 R>>"
    assert media.pdf_pages(data) == 2


def test_pages_of_a_pdf_with_packed_objects() -> None:
    """Newer PDFs pack their objects into compressed streams."""
    packed = zlib.compress(b"<</Type/Page/Parent 1 0 R>> " * 3 + b"<</Type/Pages>>")
    head = b"%PDF-1.5\n9 0 obj<</Type /ObjStm /Filter /FlateDecode /N 4>>\nstream\n"
    assert media.pdf_pages(head + packed + b"\nendstream") == 3


def test_a_pdf_that_shows_nothing_has_a_page() -> None:
    """A broken or encrypted PDF counts as one page, and a page costs what the documentation says."""
    assert media.pdf_pages(b"%PDF-1.7 broken") == 1
    assert 1_500 <= media.pdf_tokens("", OLD) <= 3_000
