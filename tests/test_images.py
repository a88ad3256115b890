import io
import os
import struct
import threading
import zlib

import numpy as np
import pytest
from PIL import Image

from eisnn_zoo.errors import Damaged
from eisnn_zoo.inference import images
from eisnn_zoo.inference.events import read_frames
from eisnn_zoo.inference.images import ImageError, open_image, preprocess

RGB = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))


def encoded(image: Image.Image, format: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def opened(image: Image.Image, format: str = "PNG", **options) -> np.ndarray:
    return np.asarray(open_image(encoded(image, format, **options)))


def test_bit_identical_to_timms_transform():
    from timm.data import create_transform

    rng = np.random.default_rng(1)
    for size, channels in ((32, 3), (28, 3), (48, 3)):
        transform = create_transform((channels, size, size), mean=(0, 0, 0), std=(1, 1, 1), interpolation="bilinear", crop_pct=1.0,
                                     crop_mode="center")
        for _ in range(40):
            h, w = rng.integers(5, 200, 2)
            image = Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8))
            assert np.array_equal(preprocess(image, (channels, size, size)), transform(image).numpy()), (h, w, size)


def test_small_images_pass_untouched():
    image = Image.fromarray(np.random.default_rng(2).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    expected = np.asarray(image, np.float32).transpose(2, 0, 1) / np.float32(255)
    assert np.array_equal(preprocess(image, (3, 32, 32)), expected)
    assert preprocess(image, (1, 28, 28)).shape == (1, 28, 28)


def test_every_mode():
    grey = RGB.convert("L")
    as_rgb = np.asarray(grey.convert("RGB"))
    assert np.array_equal(opened(RGB), np.asarray(RGB))
    assert np.array_equal(opened(grey), as_rgb)
    assert np.array_equal(opened(RGB.convert("P")), np.asarray(RGB.convert("P").convert("RGB")))
    assert set(np.unique(opened(grey.convert("1")))) <= {0, 255}
    assert opened(RGB.convert("CMYK"), "JPEG").shape == (20, 30, 3)
    assert opened(RGB.convert("YCbCr"), "JPEG").shape == (20, 30, 3)
    sixteen = Image.fromarray(np.asarray(grey, np.uint16) * 257)
    assert np.array_equal(opened(sixteen), as_rgb)
    assert np.array_equal(opened(Image.fromarray(np.asarray(grey, np.int32) * 257), "TIFF"), as_rgb)
    unit = np.asarray(grey, np.float32) / 255
    assert np.abs(opened(Image.fromarray(unit), "TIFF").astype(int) - as_rgb).max() <= 1
    overexposed = np.where(unit == unit.max(), 1.5, unit).astype(np.float32)  # one highlight changes nothing else
    assert np.abs(opened(Image.fromarray(overexposed), "TIFF").astype(int) - as_rgb)[unit < unit.max()].max() <= 1
    assert opened(Image.fromarray(np.full((4, 4), 200, np.uint16))).max() <= 1  # 16 bits, nearly black
    for values in (np.full((4, 4), 1e7, np.int32), np.full((4, 4), 1e3, np.float32), np.full((4, 4), np.nan, np.float32),
                   np.full((4, 4), -3, np.int32), np.full((4, 4), -np.inf, np.float32)):
        with pytest.raises(ImageError, match=r"the picture: values from .* up to .*: save it with 8 or 16 bits"):
            opened(Image.fromarray(values), "TIFF")


def test_transparency_lies_over_white():
    clear = RGB.copy()
    clear.putalpha(0)
    assert (opened(clear) == 255).all()
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert np.abs(opened(half).astype(int) - 127).max() <= 1
    palette = Image.new("P", (4, 4), 0)
    assert (opened(palette, transparency=0) == 255).all()
    assert (opened(Image.new("LA", (4, 4), (0, 0))) == 255).all()


def test_orientation_and_animation():
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    assert opened(RGB, "JPEG", exif=exif).shape == (30, 20, 3)
    frames = [Image.new("RGB", (8, 8), c) for c in ("red", "blue")]
    assert opened(frames[0], "GIF", save_all=True, append_images=frames[1:])[0, 0].tolist() == [255, 0, 0]


def huge_png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("data, reason", [
    (b"", "empty"), (b"hello", "not an image"), (encoded(RGB)[:200], "damaged|not an image"), (encoded(RGB, "JPEG")[:300], "damaged"),
    (huge_png(), "safe to decode"), (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "damaged|not an image"),
])
def test_what_is_no_image(data, reason):
    with pytest.raises(ImageError, match=reason):
        open_image(data, "x.png")


def test_damage_anywhere_is_an_image_or_an_error():
    rng = np.random.default_rng(3)
    for format in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        good = encoded(RGB, format)
        for _ in range(40):
            data = bytearray(good)
            for at in rng.integers(0, len(data), 4):
                data[at] = rng.integers(256)
            try:
                assert open_image(bytes(data)).mode == "RGB"
            except ImageError:
                pass


def test_missing_and_folder(tmp_path):
    with pytest.raises(ImageError, match="no such file"):
        open_image(tmp_path / "gone.png")
    with pytest.raises(ImageError, match="folder"):
        open_image(tmp_path)
    with pytest.raises(ImageError, match="null"):
        open_image("a\0b.png")


def test_event_frames(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((10, 2, 48, 48), np.uint8))
    assert read_frames(tmp_path / "a.npy", 2).dtype == np.float32
    np.save(tmp_path / "b.npy", np.array([{}]), allow_pickle=True)
    np.save(tmp_path / "c.npy", np.zeros((10, 3, 48, 48), np.uint8))
    np.save(tmp_path / "d.npy", np.full((10, 2, 48, 48), np.nan))
    np.save(tmp_path / "e.npy", np.full((10, 2, 48, 48), -1))
    np.save(tmp_path / "f.npy", np.full((10, 2, 48, 48), 1e300))
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "g.npy").write_bytes(whole[:9] + b"\x00" + whole[10:90])
    (tmp_path / "h.npy").write_bytes(whole[:128].replace(b"(10, 2, 48, 48), ", b"(10, 2, 9**9, 9),") + whole[128:])
    (tmp_path / "i.npy").write_bytes(whole[:128].replace(b"(10, 2, 48, 48)", b"(1, 2, 9999999)") + whole[128:])
    wrong = {"b": "no array", "c": r"\[T, 2, H, W\]", "d": "finite", "e": "none below 0", "f": "finite", "g": "no array", "h": "no array",
             "i": r"\[T, 2, H, W\]|no array"}
    for name, why in wrong.items():
        with pytest.raises(Damaged, match=f"{name}.npy: .*({why})"):
            read_frames(tmp_path / f"{name}.npy", 2)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_a_pipe_is_not_read_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_BYTES", 1000)
    os.mkfifo(tmp_path / "pipe.png")
    writer = threading.Thread(target=(tmp_path / "pipe.png").write_bytes, args=[bytes(1001)])
    writer.start()
    with pytest.raises(ImageError, match=r"pipe\.png: larger than the"):
        open_image(tmp_path / "pipe.png")
    writer.join()


def test_what_resizing_leaves_below_black_is_black():
    values = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    values[0, 0] = -1e-6
    assert opened(Image.fromarray(values), "TIFF")[0, 0].tolist() == [0, 0, 0]


def test_a_telephone_s_picture_is_called_by_its_name(tmp_path, cli):
    (tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    code, _, err = cli("predict", tmp_path)
    assert code == 1 and "IMG_1.HEIC: a HEIC picture, which is not read here: save it as JPEG or PNG" in err
