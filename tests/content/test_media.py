"""Images, sounds and files: what they are made of, how they are shown, what is refused."""

import io
import json
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptgrad.content import MOST_BYTES, SHOWN_BYTES, Audio, File, Image, References, media_in, restored
from promptgrad.content._sniff import media_type_of, pages_of, seconds_of, size_of
from promptgrad.data import Example
from promptgrad.lm import AudioPart, FilePart, ImagePart
from promptgrad.run import Journal, value_digest
from tests.made_files import pdf, png, wav

PNG, WAV, PDF = png(), wav(), pdf("one", "two")
CAT = Image(PNG)
MEDIA = [CAT, Audio(WAV), File(PDF, name="a.pdf"), Image("https://example.org/cat.png"), Image(PNG, detail="low")]


def test_the_parts_of_messages_are_the_same_classes():
    assert (ImagePart, AudioPart, FilePart) == (Image, Audio, File)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (CAT, "Image(png, 64x48, 149 bytes)"),
        (Image(png(640, 480) + bytes(12_000)), "Image(png, 640x480, 14 kB)"),
        (Audio(WAV), "Audio(wav, 0.5 s, 8 kB)"),
        (File(PDF, name="a.pdf"), "File(a.pdf, pdf, 2 pages, 842 bytes)"),
        (Image("https://me:pass@example.org/cat.png?sig=SECRET"), "Image(https://example.org/cat.png)"),
        (File(url="file-abc"), "File(file-abc)"),
    ],
)
def test_it_is_shown_in_short(value, shown):
    assert repr(value) == shown


def test_the_same_content_is_equal_whatever_it_is_made_of(tmp_path):
    path = tmp_path / "cat.png"
    path.write_bytes(PNG)
    made = [CAT, Image(path), Image.read(path), Image.read(str(path)), Image(bytearray(PNG)), Image(CAT.data_url)]
    made += [Image(PNG, "image/png"), Image.of(path), Image.of(PNG), Image.of(CAT.data_url), Image.of(CAT.dump())]
    assert set(made) == {CAT}
    assert {one.digest for one in made} == {CAT.digest}
    assert {value_digest(one) for one in made} == {value_digest(CAT)}
    assert {Example(a=one).id for one in made} == {Example(a=CAT).id}
    assert Image.of(CAT) is CAT
    assert value_digest(Image(png(colour=(0, 0, 0)))) != value_digest(CAT)
    assert File(Path(path)).name == "cat.png"
    assert File.read(path, name="other").name == "other"


def test_the_digest_is_the_same_in_another_process():
    code = "from promptgrad.content import Image; print(Image(b'abc', 'image/png').digest)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert out == Image(b"abc", "image/png").digest


class Drawn:
    """As an image of PIL is seen from here."""

    def __init__(self, form):
        self.format = form

    def save(self, file, form):
        file.write({"PNG": PNG, "JPEG": b"\xff\xd8\xffjpeg"}[form])

    def tobytes(self):
        raise AssertionError("raw pixels")


@pytest.mark.parametrize(
    ("form", "kind"), [("PNG", "image/png"), (None, "image/png"), ("MPO", "image/png"), ("JPEG", "image/jpeg")]
)
def test_an_image_of_pil_is_encoded(form, kind):
    assert Image(Drawn(form)).media_type == Image.of(Drawn(form)).media_type == kind
    assert Image(Drawn(None)) == CAT


def test_pil_itself():
    pillow = pytest.importorskip("PIL.Image")
    made = Image(pillow.new("RGB", (640, 480), (255, 0, 0)))
    assert repr(made).startswith("Image(png, 640x480, ")
    small = Image(made._repr_png_())
    assert small.size == (256, 192)
    assert "base64" in made._repr_html_()
    assert Image(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1 broken").size == (1, 1)
    assert Image(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1 broken")._thumbnail() == b""


def test_of_bytes_that_do_not_tell_what_they_are_the_name_of_the_file_does():
    assert File(b"a,b\n1,2", name="a.csv").media_type == "text/csv"
    assert File(b"PK\x03\x04....", name="a.docx").media_type.endswith("wordprocessingml.document")
    assert File(b"%PDF-1.4", name="a.txt").media_type == "application/pdf"
    with pytest.raises(ValueError, match=r"'a\.pdf' is no application/pdf, as its name says: it is a text"):
        File(b"a,b", name="a.pdf")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16"])
def test_an_image_of_pil_may_have_any_colours(mode):
    """PNG has no colours of print, and JPEG no transparency."""
    pillow = pytest.importorskip("PIL.Image")
    for kind in ("image/png", "image/jpeg"):
        made = Image(pillow.new(mode, (6, 4)), kind if mode != "I;16" else "image/png")
        assert made.size == (6, 4)
        assert made._thumbnail()


def test_an_image_of_pil_that_ends_too_early_is_told():
    pillow = pytest.importorskip("PIL.Image")
    whole = Image(pillow.effect_noise((64, 64), 90)).data
    with pytest.raises(ValueError, match=r"cannot be written as png: .*truncated"):
        Image(pillow.open(io.BytesIO(whole[:-900])))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Image(), "needs bytes or an address"),
        (lambda: Image(PNG, url="https://e.org/a.png"), "either data="),
        (lambda: Image("https://e.org/a.png", url="https://e.org/a.png"), "either data="),
        (lambda: Image("cat.png"), r"no address: Image.read\('cat.png'\) reads a file"),
        (lambda: Image("/etc/passwd"), "no address"),
        (lambda: Image("C:\\cat.png"), "no address"),
        (lambda: Image("file:///etc/passwd"), "from http: and https: addresses, not from 'file:///etc/passwd'"),
        (lambda: Image("ftp://e.org/a.png"), "not from 'ftp://e.org/a.png'"),
        (lambda: Image(b"what?"), "needs a media_type, such as image/"),
        (lambda: Image(WAV), "begins with 'image/', not 'audio/wav'"),
        (lambda: Image(b"x", 'image/png" onerror="x'), "is a text such as 'image/png'"),
        (lambda: Image("data:image/png;base64,"), "holds no bytes"),
        (lambda: Image("data:image/png"), "has a comma"),
        (lambda: Image.of({"type": "audio", "data": ""}), "no JSON form"),
        (lambda: Image.of({"data": 3}), "no JSON form"),
        (lambda: Image.of({"data": "?", "media_type": "image/png"}), "base64"),
        (lambda: Image.of({"path": "/etc/passwd"}), "unexpected keyword"),
        (lambda: Image.of(7), "bytes, not int"),
        (lambda: Image.of(Audio(WAV)), "an Audio already"),
        (lambda: restored({"type": "tool_call"}), "the types of parts in a state"),
        (lambda: Image(bytes(MOST_BYTES + 1), "image/png"), "50.0 MB are the most"),
    ],
)
def test_what_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def test_files_that_are_none_or_too_large_are_refused(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ValueError, match="it is a named pipe, not a file"):
        Image.read(tmp_path / "pipe.png")
    monkeypatch.setattr("promptgrad.content._sources.MOST_BYTES", 100)
    (tmp_path / "a.png").write_bytes(PNG)
    with pytest.raises(ValueError, match="larger than 100 bytes"):
        Image.read(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError):
        Image.read(tmp_path / "none.png")
    (tmp_path / "b").write_bytes(b"abc")
    with pytest.raises(ValueError, match="is not known from its name"):
        Image.read(tmp_path / "b")


@pytest.mark.parametrize("value", MEDIA)
def test_it_comes_back_from_json_and_pickle(value):
    assert restored(json.loads(json.dumps(value.dump()))) == value
    assert pickle.loads(pickle.dumps(value)) == value
    assert hash(pickle.loads(pickle.dumps(value))) == hash(value)


def test_a_journal_notes_the_digest_and_not_the_bytes(tmp_path):
    large = Image(png(400, 400, (1, 2, 3)) + os.urandom(9_000))
    with Journal(tmp_path / "journal.jsonl") as journal:
        journal.append("seen", what={"picture": large, "more": [CAT]})
    text = (tmp_path / "journal.jsonl").read_text()
    assert large.digest in text
    assert CAT.digest in text
    assert len(text) < 1_500


def jpeg(width, height):
    app = b"\xff\xe0" + struct.pack(">H", 16) + b"JFIF" + bytes(10)
    frame = b"\xff\xc2" + struct.pack(">HBHH", 11, 8, height, width) + bytes(4)
    return b"\xff\xd8" + app + frame


SIZED = [
    (png(3, 5), (3, 5)),
    (b"GIF89a" + struct.pack("<HH", 3, 5), (3, 5)),
    (b"BM" + bytes(16) + struct.pack("<ii", 3, -5), (3, 5)),
    (jpeg(3, 5), (3, 5)),
    (b"RIFF\0\0\0\0WEBPVP8X" + bytes(8) + b"\2\0\0\4\0\0", (3, 5)),
    (b"RIFF\0\0\0\0WEBPVP8L" + bytes(5) + struct.pack("<I", 2 | 4 << 14) + bytes(5), (3, 5)),
    (b"RIFF\0\0\0\0WEBPVP8 " + bytes(10) + struct.pack("<HH", 3, 5), (3, 5)),
]


@pytest.mark.parametrize(("data", "size"), SIZED)
def test_the_size_is_read_from_the_header(data, size):
    assert size_of(data) == size
    assert [size_of(data[:end]) for end in range(len(data))].count(size) < len(data)  # and a part of it is no error


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=60), st.sampled_from([b"", *(data[:24] for data, _ in SIZED), PDF[:40], WAV[:40]]))
def test_no_bytes_break_the_readers(noise, start):
    data = start + noise
    assert size_of(data) is None or min(size_of(data)) > 0
    assert isinstance(media_type_of(data), str)
    assert seconds_of(data) is None or seconds_of(data) >= 0
    assert pages_of(data) is None or pages_of(data) > 0


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (PNG, "image/png"), (jpeg(1, 1), "image/jpeg"), (WAV, "audio/wav"), (PDF, "application/pdf"),
        (b"ID3\4", "audio/mpeg"), (b"\0\0\0\x20ftypavif", "image/avif"), (b"RIFF\0\0\0\0AVI ", ""), (b"", ""),
    ],
)  # fmt: skip
def test_the_first_bytes_tell_the_type(start, kind):
    assert media_type_of(start) == kind


@pytest.mark.parametrize(
    ("size", "model", "tokens"),
    [
        ((1024, 1024), "openai/gpt-4o", 765),  # the examples of OpenAI's page
        ((2048, 4096), "openai/gpt-4o", 1105),
        ((1024, 1024), "openai/gpt-4o-mini", 2833 + 4 * 5667),
        ((200, 200), "anthropic/claude-sonnet-4-5", 54 + 4),  # and of Anthropic's: about 54, 1334, 1600
        ((1000, 1000), "anthropic/claude-sonnet-4-5", 1334 + 4),
        ((1568, 1568), "anthropic/claude-sonnet-4-5", 1600 + 4),
        ((384, 384), "gemini/gemini-2.5-flash", 258),
        ((1000, 700), "gemini/gemini-2.5-flash", 516),
        ((1024, 1024), "", 1403),
    ],
)
def test_tokens_of_an_image_by_its_providers_rule(size, model, tokens):
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", *size)
    assert Image(header).tokens(model) == tokens


def test_tokens_of_other_things():
    assert Image(PNG, detail="low").tokens("gpt-4o") == 85
    assert Image("https://e.org/a.png").tokens() is None  # nothing is known of it
    assert Audio(wav(2.0)).tokens("openai/gpt-4o-audio-preview") == 21
    assert Audio(wav(2.0)).tokens() == 65
    assert Audio(url="https://e.org/a.wav").tokens() is None
    assert File(PDF).tokens("gemini/x") == 516
    assert File(PDF).tokens() == 9_200
    assert File(url="file-abc").tokens() is None
    assert File(b"a text", "text/plain").tokens() == 6


def test_notebooks_show_a_small_picture_and_load_no_address():
    assert CAT._repr_png_()
    assert CAT._repr_html_().startswith("<figure><img")
    assert "Image(png, 64x48" in CAT._repr_html_()
    assert Image("https://e.org/<a>.png")._repr_html_() == "<code>Image(https://e.org/&lt;a&gt;.png)</code>"
    assert Image("https://e.org/a.png")._repr_png_() is None
    large = Image(bytes(SHOWN_BYTES + 1), "image/png")
    assert large._repr_html_() == "<code>Image(png, 500 kB)</code>"
    assert large._repr_png_() is None
    assert "<audio controls" in Audio(WAV)._repr_html_()
    assert File(PDF, name="<b>")._repr_html_() == "<code>File(&lt;b&gt;, pdf, 2 pages, 842 bytes)</code>"


def test_media_are_found_and_referred_to():
    assert media_in({"a": [1, ("x", CAT)]}) is CAT
    assert media_in(["x", 1, None]) is None
    references = References()
    assert [references.add(one) for one in (CAT, Audio(WAV), Image(PNG), Image(jpeg(1, 1)))] == [
        "image 1", "audio 1", "image 1", "image 2",
    ]  # fmt: skip


def test_nothing_is_told_as_nothing(tmp_path):
    empty = tmp_path / "empty.png"
    empty.write_bytes(b"")
    with pytest.raises(ValueError, match=r"empty\.png is empty"):
        Image.read(empty)
    with pytest.raises(ValueError, match=r"Image needs bytes or an address, and was given none"):
        Image(b"")


@pytest.mark.parametrize(
    ("name", "data", "kind", "said"),
    [
        ("cat.png", b"abc", Image, "is no image/png, as its name says: it is a text, and begins with b'abc'"),
        ("cat.jpg", b"<!doctype html><title>Not found", Image, "is no image/jpeg, .* it is a text"),
        ("cat.png", PDF, Image, "it is application/pdf"),
        ("cat.webp", bytes(99), Image, "it is something else"),
        ("a.mp3", "Grüße".encode(), Audio, "is no audio/mpeg"),
        ("a.wav", PNG, Audio, "it is image/png"),
        ("a.pdf", b"only text", File, "is no application/pdf"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path, name, data, kind, said):
    (tmp_path / name).write_bytes(data)
    for make in (kind.read, kind, kind.of):
        with pytest.raises(ValueError, match=said):
            make(tmp_path / name)
    own = kind.read(tmp_path / name, f"{kind.family or 'application/'}x-own")
    assert own.data == data  # who says the type is trusted


@pytest.mark.parametrize(
    ("name", "data", "kind", "media_type"),
    [
        ("cat.png", jpeg(1, 1), Image, "image/jpeg"),  # providers refuse a JPEG that is called a PNG
        ("cat.svg", b"<svg/>", Image, "image/svg+xml"),
        ("cat.heic", b"\0\0\0\x18ftypheix", Image, "image/heic"),
        ("a.wav", WAV, Audio, "audio/wav"),
        ("a.flac", b"ID3\4 fLaC", Audio, "audio/flac"),
        ("a.m4a", b"\0\0\0\x20ftypisom\0", Audio, "audio/mp4"),
        ("a.pdf", b"\n\n" + PDF, File, "application/pdf"),
        ("a.txt", b"BMW", File, "text/plain"),
        ("a.md", b"%PDF- is how a PDF begins", File, "text/markdown"),
    ],
)
def test_a_file_has_the_type_that_its_bytes_tell(tmp_path, name, data, kind, media_type):
    (tmp_path / name).write_bytes(data)
    assert kind.read(tmp_path / name).media_type == media_type


@pytest.mark.parametrize("cut", range(4094, 4099))
def test_a_text_is_known_wherever_its_beginning_ends(tmp_path, cut):
    (tmp_path / "cat.png").write_bytes(b"a" * (cut - 1) + "\N{SNOWMAN}".encode() * 9)
    with pytest.raises(ValueError, match="it is a text"):
        Image.read(tmp_path / "cat.png")


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        (Image, "from_file", r"'Image' has no attribute 'from_file': write Image\.read\(path\)$"),
        (Image, "from_path", r"Image\.read\(path\)"),
        (Image, "from_url", r"Image\('https://...'\), an address"),
        (Image, "from_PIL", r"Image\(image\), with an image of PIL"),
        (Audio, "from_array", "an encoded sound"),
        (File, "from_file_id", r"File\(url='file-...'\)"),
        (Image, "nothing", "'Image' has no attribute 'nothing'$"),
    ],
)
def test_names_of_dspy_get_what_to_write_here(kind, name, said):
    with pytest.raises(AttributeError, match=said):
        getattr(kind, name)
