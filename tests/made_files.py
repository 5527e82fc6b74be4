"""Real files for tests, made here: a PNG, a WAV, a PDF; and readers that refuse what is none."""

import io
import re
import struct
import wave
import zlib


def png(width=64, height=48, colour=(255, 0, 0), comment=b""):
    """A PNG of one colour, with a comment that makes it larger."""
    rows = b"".join(b"\0" + bytes(colour) * width for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    if comment:
        chunks.insert(1, (b"tEXt", b"Comment\0" + comment))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def read_png(data):
    """Width, height and the colour of the first pixel of a PNG that `png` made; every checksum is checked."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, found = 8, {}
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + body)
        found[kind] = body
        at += 12 + length
    width, height = struct.unpack(">II", found[b"IHDR"][:8])
    rows = zlib.decompress(found[b"IDAT"])
    assert len(rows) == height * (1 + 3 * width)
    return width, height, tuple(rows[1:4])


def wav(seconds=0.5, rate=8_000):
    """Silence."""
    made = io.BytesIO()
    with wave.open(made, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(bytes(int(seconds * rate) * 2))
    return made.getvalue()


def read_wav(data):
    """The seconds of a WAV."""
    with wave.open(io.BytesIO(data)) as sound:
        frames = sound.readframes(sound.getnframes())
        assert len(frames) == sound.getnframes() * sound.getsampwidth() * sound.getnchannels()
        return sound.getnframes() / sound.getframerate()


def pdf(*pages):
    """A PDF with a line of text on each page."""
    kids = " ".join(f"{3 + 2 * number} 0 R" for number in range(len(pages)))
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>"]
    for number, text in enumerate(pages):
        stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {4 + 2 * number} 0 R "
            "/Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    made, places = b"%PDF-1.4\n", []
    for number, text in enumerate(objects, 1):
        places.append(len(made))
        made += f"{number} 0 obj\n{text}\nendobj\n".encode()
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    tail = (
        f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\n"
    )
    return made + f"{tail}startxref\n{len(made)}\n%%EOF\n".encode()


def read_pdf(data):
    """The texts of a PDF that `pdf` made; its table is checked."""
    assert data.startswith(b"%PDF-")
    start = int(re.search(rb"startxref\n(\d+)\n%%EOF\s*$", data)[1])
    assert data[start:].startswith(b"xref\n")
    for number, place in enumerate(re.findall(rb"(\d{10}) 00000 n", data[start:]), 1):
        assert data[int(place) :].startswith(b"%d 0 obj" % number)
    return [text.decode() for text in re.findall(rb"\((.*?)\) Tj", data)]
