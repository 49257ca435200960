"""The data source ``image_folder`` on real files, good, broken and hostile."""

import numpy as np
import pytest
from PIL import Image

from locex.errors import DataUnavailable, InvalidConfiguration

RNG = np.random.default_rng(0)


def save(path, size=(6, 5), channels=3, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (*size, channels) if channels else size, np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return pixels


@pytest.fixture
def folder(tmp_path):
    for name, count in (("cat", 6), ("ant", 4)):
        for number in range(count):
            save(tmp_path / "train" / name / f"{number}.png")
    return tmp_path


def refused(source, *complaints):
    with pytest.raises(DataUnavailable) as caught:
        source.load()
    for complaint in complaints:
        assert complaint in caught.value.message
    assert caught.value.remedy


def test_a_folder_per_class(folder, make_source):
    pixels = save(folder / "train" / "bee" / "deeper" / "b.PNG")
    (folder / "train" / "bee" / "notes.txt").write_text("no image")
    (folder / "train" / ".hidden").mkdir()
    data = make_source("image_folder", folder, test_fraction=0.3, stratify=True).load()
    y = np.concatenate([data.train.y, data.test.y])
    assert np.bincount(y).tolist() == [4, 1, 6]  # ant, bee, cat
    assert data.train.x.dtype == np.uint8
    assert (len(data.train), len(data.test)) == (8, 3)
    np.testing.assert_array_equal(np.concatenate([data.train.x, data.test.x])[y == 1], pixels[None])
    assert make_source("image_folder", folder).format() == data.format
    assert data.format.model_dump(exclude_none=True) == {
        "x": {"data_types": {"image": {"size": [6, 5, 3], "dtype": "uint8"}}},
        "y": {"data_types": {"categorical": {"size": [], "dtype": "int64"}}},
    }


@pytest.mark.parametrize(
    ("fields", "shape"),
    [({"mode": "L"}, (6, 5)), ({"mode": "RGBA"}, (6, 5, 4)), ({"size": ["3", 4]}, (3, 4, 3))],
)
def test_images_get_one_size_and_mode(fields, shape, folder, make_source):
    source = make_source("image_folder", folder, **fields)
    assert source.load().train.x.shape[1:] == shape
    assert source.format().x.data_types["image"].size == list(shape)


def test_images_of_other_sizes_need_a_size(folder, make_source):
    save(folder / "train" / "cat" / "9.jpg", (30, 40), quality=95)
    refused(make_source("image_folder", folder), "'train/cat/9.jpg' has shape (30, 40, 3), the first image (6, 5, 3)")
    assert len(make_source("image_folder", folder, size=[4, 4]).load().train) == 9


def test_classes_may_be_declared_so_that_sites_agree(folder, make_source):
    data = make_source("image_folder", folder, classes=["zebra", "cat", "ant"]).load()
    assert np.bincount(np.concatenate([data.train.y, data.test.y])).tolist() == [0, 6, 4]
    for name in ("..", "a/b", ".x"):
        with pytest.raises(InvalidConfiguration):
            make_source("image_folder", folder, classes=[name])


def test_a_test_folder_has_the_training_folders_classes(folder, make_source):
    save(folder / "test" / "cat" / "a.png")
    data = make_source("image_folder", folder).load()
    assert (len(data.train), data.test.y.tolist()) == (10, [1])


@pytest.mark.parametrize("in_memory", [1, 0])
def test_filters_by_class_and_bounded_memory(in_memory, folder, tmp_path, make_source):
    filters = [{"column": "class", "op": "==", "value": "cat"}]
    data = make_source("image_folder", folder, cache=tmp_path / "cache", filters=filters, in_memory=in_memory).load()
    assert isinstance(data.train.x, np.memmap) == (in_memory == 0)
    assert {*data.train.y, *data.test.y} == {1}
    refused(make_source("image_folder", folder, filters=[{"column": "name", "op": "==", "value": "x"}]), "'name'")


def test_files_that_are_refused(folder, tmp_path, make_source):
    source = make_source("image_folder", folder, max_pixels=29)
    refused(source, "'train/ant/0.png': an image of 5 x 6 pixels has more than 29")
    (folder / "train" / "cat" / "x.jpg").write_bytes(b"\xff\xd8\xff nothing")
    refused(make_source("image_folder", folder), "'train/cat/x.jpg': not an image that can be read")
    (folder / "train" / "cat" / "x.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 6\n")
    refused(make_source("image_folder", folder), "'train/cat/x.jpg': not an image")  # would start Ghostscript


def test_links_out_of_the_folder_are_refused(folder, tmp_path_factory, make_source):
    outside = tmp_path_factory.mktemp("outside")
    save(outside / "secret.png")
    (folder / "train" / "cat" / "link.png").symlink_to(outside / "secret.png")
    refused(make_source("image_folder", folder), "'train/cat/link.png' leads out of the data folder")
    (folder / "train" / "cat" / "link.png").unlink()
    (folder / "train" / "dog").symlink_to(outside)
    refused(make_source("image_folder", folder), "leads out of the data folder")


def test_no_images_at_all(tmp_path, make_source):
    (tmp_path / "train" / "cat").mkdir(parents=True)
    for ask in ("format", "load"):
        with pytest.raises(DataUnavailable, match=r"there are no (images|examples)"):
            getattr(make_source("image_folder", tmp_path), ask)()
