import nibabel
import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from monai_synth.data import check, list_images, read_image, to_rgb
from monai_synth.data.images import look_at
from monai_synth.data.near_duplicates import small_image


@pytest.fixture
def pixels():
    image = np.zeros((4, 6, 3), np.uint8)
    image[0, 0] = (255, 0, 0)
    image[3, 5] = (0, 128, 255)
    return image


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp"])
def test_lossless_formats_keep_every_pixel(tmp_path, pixels, suffix):
    path = tmp_path / f"image with Umläut.{suffix}"
    Image.fromarray(pixels).save(path, **({"lossless": True} if suffix == "webp" else {}))
    np.testing.assert_allclose(read_image(path), pixels.transpose(2, 0, 1) / 255, atol=1e-6)


def test_transparent_pixels_are_white(tmp_path):
    Image.fromarray(np.array([[[10, 20, 30, 0], [10, 20, 30, 255]]], np.uint8), "RGBA").save(tmp_path / "a.png")
    np.testing.assert_allclose(read_image(tmp_path / "a.png")[:, 0], np.array([[255, 10], [255, 20], [255, 30]]) / 255)


def test_palette_grey_and_one_bit_become_rgb(tmp_path, pixels):
    Image.fromarray(pixels).convert("P", palette=Image.Palette.ADAPTIVE, colors=8).save(tmp_path / "p.png")
    np.testing.assert_allclose(read_image(tmp_path / "p.png")[:, 0, 0], [1, 0, 0], atol=0.02)
    Image.fromarray(np.array([[0, 255]], np.uint8)).save(tmp_path / "l.png")
    np.testing.assert_allclose(read_image(tmp_path / "l.png"), [[[0, 1]]] * 3)
    Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1").save(tmp_path / "bit.png")
    np.testing.assert_allclose(read_image(tmp_path / "bit.png"), [[[0, 1]]] * 3)


def test_cmyk_becomes_rgb(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "c.jpg", quality=100)
    red, green, blue = read_image(tmp_path / "c.jpg")[:, 4, 4]
    assert red > 0.8 and green < 0.3 and blue < 0.3


def test_sixteen_bits_are_scaled_and_a_float_needs_a_range(tmp_path):
    Image.fromarray(np.array([[0, 65535, 32768]], np.uint16)).save(tmp_path / "deep.png")
    np.testing.assert_allclose(read_image(tmp_path / "deep.png")[0, 0], [0, 1, 0.5], atol=1e-4)
    Image.fromarray(np.array([[0.0, 3.0, 6.0]], np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ValueError, match="float.tif holds 0 to 6, .* Give value_range"):
        read_image(tmp_path / "float.tif")
    np.testing.assert_allclose(read_image(tmp_path / "float.tif", value_range=(0, 6))[2, 0], [0, 0.5, 1])


@pytest.mark.parametrize("name", ["deep.png", "DEEP.TIF"])
def test_sixteen_bits_become_eight_by_the_same_scale(tmp_path, name):
    grey = np.arange(0, 65535, 257, dtype=np.uint16).reshape(15, 17)
    Image.fromarray(grey).save(tmp_path / name)
    with Image.open(tmp_path / name) as image:
        assert np.array_equal(
            np.asarray(to_rgb(image)), np.repeat((grey // 257).astype(np.uint8)[..., None], 3, axis=2)
        )
    Image.fromarray(grey.astype(np.float32)).save(tmp_path / "float.tif")
    with Image.open(tmp_path / "float.tif") as image, pytest.raises(ValueError, match="float.tif holds 0 to 65278, "):
        to_rgb(image)


def test_exif_orientation_is_applied(tmp_path, pixels):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it turned by 90 degrees to the right
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_allclose(read_image(tmp_path / "turned.png"), np.rot90(pixels, -1).transpose(2, 0, 1) / 255)


def test_nifti_in_its_layouts(tmp_path, pixels):
    column_first = pixels.transpose(1, 0, 2)
    rgb = np.zeros(column_first.shape[:2], dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    for index, name in enumerate("RGB"):
        rgb[name] = column_first[..., index]
    layouts = {"last": column_first, "first": column_first.transpose(2, 0, 1), "structure": rgb[..., None]}
    for name, content in layouts.items():
        nibabel.save(nibabel.Nifti1Image(content, np.eye(4)), tmp_path / f"{name}.nii.gz")
        np.testing.assert_allclose(read_image(tmp_path / f"{name}.nii.gz"), pixels.transpose(2, 0, 1) / 255, atol=1e-6)
    nibabel.save(nibabel.Nifti1Image(np.arange(6, dtype=np.int16).reshape(2, 3), np.eye(4)), tmp_path / "grey.nii")
    with pytest.raises(ValueError, match="Give value_range"):
        read_image(tmp_path / "grey.nii")
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 3, 4, 5), np.uint8), np.eye(4)), tmp_path / "film.nii")
    with pytest.raises(ValueError, match="has the shape"):
        read_image(tmp_path / "film.nii")


def test_pages_must_be_named(tmp_path):
    pages = [Image.new("RGB", (4, 4), color) for color in ("red", "lime")]
    pages[0].save(tmp_path / "two.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match="two.tif has 2 pages"):
        read_image(tmp_path / "two.tif")
    np.testing.assert_allclose(read_image(tmp_path / "two.tif", page=1)[:, 0, 0], [0, 1, 0])
    with pytest.raises(ValueError, match="has no page 7"):
        read_image(tmp_path / "two.tif", page=7)


def test_what_is_no_image_is_named(tmp_path):
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "empty.png").touch()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:2000])
    (tmp_path / "bad.nii").write_text("hello")
    for name in ("text.jpg", "empty.png", "cut.png", "bad.nii"):
        with pytest.raises(ValueError, match=f"{name} is not a.* image that can be read"):
            read_image(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="There is no image .*gone.png"):
        read_image(tmp_path / "gone.png")


@pytest.fixture
def damaged(tmp_path):
    """A class folder with a sound image and files of which a few bytes are wrong, by what Pillow raises for them."""
    folder, exif, tags = tmp_path / "set" / "a", Image.Exif(), ImageFileDirectory_v2()
    folder.mkdir(parents=True)
    exif[0x0112] = 6
    tags.tagtype[700], tags[700] = 2, "<x:xmpmeta/>"  # ASCII, where XMP is bytes
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3)).astype(np.uint8))
    noise.save(folder / "sound.png")
    noise.save(folder / "SyntaxError.jpg", exif=exif)
    noise.save(folder / "TypeError.tif")
    noise.save(folder / "text.tif", tiffinfo=tags)
    noise.save(folder / "ValueError.png")
    changes = {
        "SyntaxError.jpg": (b"Exif\0\0MM\0*", b"Exif\0\0MX\0*"),  # the mark of a TIFF header, which EXIF has
        "TypeError.tif": (b"\x11\1\4\0", b"\x11\1\5\0"),  # the type of the strips' places
        "ValueError.png": (b"\0\0\0\rIHDR", b"\0\0\0\2IHDR"),  # the length of the header
    }
    for name, (sound, wrong) in changes.items():
        content = (folder / name).read_bytes()
        assert content.count(sound) == 1
        (folder / name).write_bytes(content.replace(sound, wrong))
    return folder


@pytest.mark.parametrize(
    ("name", "readers"),
    [
        ("SyntaxError.jpg", [read_image, look_at]),  # near-duplicates are searched for in images as they are stored
        ("TypeError.tif", [read_image, look_at, small_image]),
        ("text.tif", [read_image, look_at, small_image]),
        ("ValueError.png", [read_image, look_at, small_image]),
    ],
)
def test_damage_of_any_kind_is_told_with_the_file(damaged, name, readers):
    for read in readers:
        with pytest.raises(ValueError, match=f"^{damaged / name} is not an image that can be read: "):
            read(damaged / name)


def test_one_damaged_file_does_not_end_the_scan(damaged):
    (damaged.parent / "b").mkdir()
    Image.effect_noise((40, 40), 50).save(damaged.parent / "b" / "sound.png")
    errors = {finding.path: finding.message for finding in check(damaged.parent) if finding.level == "error"}
    assert set(errors) == {f"a/{name}" for name in ("SyntaxError.jpg", "TypeError.tif", "text.tif", "ValueError.png")}
    assert all("is not an image that can be read" in message for message in errors.values())


def test_a_whole_slide_is_refused_before_it_is_decoded(tmp_path):
    Image.new("1", (10_000, 6_000)).save(tmp_path / "slide.png")
    with pytest.raises(ValueError, match="slide.png has 10000 x 6000 pixels.*Cut it into tiles first"):
        read_image(tmp_path / "slide.png")


def test_images_of_a_folder_are_listed(tmp_path, pixels):
    (tmp_path / "deep").mkdir()
    Image.fromarray(pixels).save(tmp_path / "deep" / "a.png")
    (tmp_path / "notes.txt").write_text("x")
    for hidden in (".hidden.png", ".hid/a.png", "__MACOSX/deep/._a.png", "__MACOSX/b.png", "deep/.cache/a.png"):
        (tmp_path / hidden).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / hidden).write_bytes(b"")
    assert [record["image"] for record in list_images(tmp_path)] == [str(tmp_path / "deep" / "a.png")]
    assert [record["image"] for record in list_images(tmp_path / ".hid")] == [str(tmp_path / ".hid" / "a.png")]
    with pytest.raises(FileNotFoundError, match="There are no images in"):
        list_images(tmp_path / "nowhere")
