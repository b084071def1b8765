"""What may stand in a prompt, and what is said where the API could not take it."""

from __future__ import annotations

import os
from base64 import b64decode
from pathlib import Path

import pytest
from anthropic.types import TextBlock
from hypothesis import given
from hypothesis import strategies as st

from llmnb.asking import content
from llmnb.asking.content import content_of
from llmnb.errors import InvalidRequest

PNG = b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==")
HEADS = {
    "image/png": PNG,
    "image/jpeg": b"\xff\xd8\xff\xe0" + bytes(20),
    "image/gif": b"GIF89a" + bytes(20),
    "image/webp": b"RIFF\x00\x00\x00\x00WEBPVP8 " + bytes(20),
}


@given(st.text().filter(str.strip))
def test_a_text_is_never_edited(text: str) -> None:
    """A plain text is sent as the text it is, also inside a list."""
    assert content_of(text) == text
    assert content_of([text]) == [{"type": "text", "text": text}]


@pytest.mark.parametrize("media_type", HEADS)
def test_images_are_known_by_their_bytes(media_type: str, tmp_path: Path) -> None:
    """An image is told by its content, whatever its file is called, and survives unchanged."""
    path = tmp_path / "no-suffix"
    path.write_bytes(HEADS[media_type])
    for prompt in (path, HEADS[media_type], [path]):
        (block,) = content_of(prompt)
        assert block["type"] == "image"
        assert block["source"]["media_type"] == media_type
        assert b64decode(block["source"]["data"]) == HEADS[media_type]


def test_pdf(tmp_path: Path) -> None:
    """A PDF becomes a document that carries its file's name."""
    (tmp_path / "paper.pdf").write_bytes(b"%PDF-1.7 ...")
    (block,) = content_of(tmp_path / "paper.pdf")
    assert block["type"] == "document"
    assert block["source"]["media_type"] == "application/pdf"
    assert block["title"] == "paper.pdf"
    assert "title" not in content_of(b"%PDF-1.7 ...")[0]


def test_text_file(tmp_path: Path) -> None:
    """A text file becomes a text document, without its byte order mark."""
    (tmp_path / "notes.md").write_bytes("\ufeff# Blåbær".encode())
    (block,) = content_of([tmp_path / "notes.md"])
    assert block == {
        "type": "document",
        "title": "notes.md",
        "source": {"type": "text", "media_type": "text/plain", "data": "# Blåbær"},
    }


def test_text_in_bytes() -> None:
    """Bytes that are text are sent as text."""
    assert content_of("Blåbær".encode()) == [{"type": "text", "text": "Blåbær"}]


def test_sdk_blocks() -> None:
    """Blocks of the SDK, as dicts and as objects, keep their place among the others."""
    image = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}
    blocks = content_of(["What is this?", image, TextBlock(type="text", text="And this?")])
    assert blocks == [{"type": "text", "text": "What is this?"}, image, {"type": "text", "text": "And this?"}]
    assert content_of(image) == [image]


def test_missing_file_names_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing file is named with its folder and the file that was probably meant."""
    (tmp_path / "plot.png").write_bytes(PNG)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidRequest, match=r"plott\.png in .*Did you mean 'plot\.png'") as caught:
        content_of(Path("plott.png"))
    assert str(tmp_path) in str(caught.value)


def test_folder(tmp_path: Path) -> None:
    """A folder is refused, with the way to give its files."""
    with pytest.raises(InvalidRequest, match="glob"):
        content_of(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(tmp_path: Path) -> None:
    """A file that may not be read is refused with the system's reason."""
    path = tmp_path / "secret.txt"
    path.write_text("x")
    path.chmod(0)
    with pytest.raises(InvalidRequest, match="cannot be read"):
        content_of(path)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"BM" + bytes(50), "BMP"),
        (b"II*\x00" + bytes(50), "TIFF"),
        (b"PK\x03\x04\x00\x00" + bytes(50), "DOCX"),
        (b"\x00\x00\x00\x18ftypheic" + bytes(50), "HEIC"),
        (b"\x1f\x8b\x08\x00" + bytes(50), "gzip"),
        (bytes(range(256)), "neither an image"),
        ("Blåbær".encode("latin-1"), "neither an image"),
    ],
)
def test_kinds_the_api_does_not_take(data: bytes, said: str, tmp_path: Path) -> None:
    """A file of another kind is refused with its name, its kind and what is taken."""
    path = tmp_path / "thing.bin"
    path.write_bytes(data)
    with pytest.raises(InvalidRequest, match=said) as caught:
        content_of(path)
    assert "thing.bin" in str(caught.value)
    assert "PNG" in str(caught.value)


def test_text_that_begins_like_an_image() -> None:
    """Text is not taken for the archive or image whose magic it happens to begin with."""
    assert content_of(b"BMW makes cars") == [{"type": "text", "text": "BMW makes cars"}]


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot fit is refused by its size, and not read for that."""
    path = tmp_path / "huge.txt"
    with path.open("wb") as file:
        file.truncate(content.MAX_REQUEST_BYTES + 1)
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("it was read"))
    with pytest.raises(InvalidRequest, match=r"32\.0 MB"):
        content_of(path)


def test_too_large_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts that fit one by one but not together are refused."""
    monkeypatch.setattr(content, "MAX_REQUEST_BYTES", 100)
    with pytest.raises(InvalidRequest, match="together"):
        content_of(["x" * 60, "y" * 60])


@pytest.mark.parametrize("prompt", ["", " \n", [], [""], b"", ["a", " "]])
def test_empty(prompt: object) -> None:
    """An empty prompt, or an empty part of one, is refused before it is sent."""
    with pytest.raises(InvalidRequest):
        content_of(prompt)  # type: ignore[arg-type]


@pytest.mark.parametrize("prompt", [None, 5, object(), [3], [None], TextBlock])
def test_other_types(prompt: object) -> None:
    """Anything else is refused with its type and with what is taken."""
    with pytest.raises(InvalidRequest, match="cannot hold"):
        content_of(prompt)  # type: ignore[arg-type]


def test_messages_belong_in_a_chat() -> None:
    """A list of messages is refused with the way to hold a conversation."""
    with pytest.raises(InvalidRequest, match=r"llm\.chat\(\)"):
        content_of([{"role": "user", "content": "Hi"}])


def test_a_block_needs_a_type() -> None:
    """A dict that is no block is refused."""
    with pytest.raises(InvalidRequest, match='"type"'):
        content_of({"text": "Hi"})
