"""What `pae reconstruct` writes: every image under a name of its own."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from pae_framework.config import DataSourceConfig
from pae_framework.contracts import DataSource, LabeledImage
from pae_framework.evaluation.reconstruct_to_folder import reconstruct_to_folder
from pae_framework.system.files import read_json


class Darker(DataSource):
    """Image i of a hundred shows i everywhere; sorted by class, ten of each."""

    class_names = tuple("0123456789")

    def __len__(self):
        return 100

    def __getitem__(self, index):
        return LabeledImage(torch.full((3, 4, 4), index, dtype=torch.uint8), index // 10)


class Copy:
    """A tokenizer that loses nothing: its PSNR is the highest there is, 100 dB."""

    def encode(self, x):
        return SimpleNamespace(latents=x)

    def decode(self, latents):
        return latents + 1e-4  # truncation to uint8 must not fall below the level


@pytest.fixture
def reconstruct(tmp_path):
    data = SimpleNamespace(image_size=4, train=SimpleNamespace(config=DataSourceConfig()))
    recipe = SimpleNamespace(data=data, seed=0)
    context = SimpleNamespace(
        recipe=recipe,
        test_source=Darker(DataSourceConfig(), 4),
        device=torch.device("cpu"),
    )

    def reconstruct(files=(), count=8):
        out = tmp_path / "out"
        return reconstruct_to_folder(context, files, count, out, lambda context: Copy())

    return reconstruct


def picture(path, level):
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (6, 5), (level,) * 3).save(path)
    return path


def level(path):
    return Image.open(path).convert("RGB").getpixel((0, 0))[0]


def test_files_of_one_name_and_one_called_compare_are_all_kept(reconstruct, tmp_path):
    names = ("a/x.png", "b/x.png", "a/compare.png")
    files = [picture(tmp_path / name, 10 * number) for number, name in enumerate(names, start=1)]
    found = reconstruct(files)

    assert found == [("000_x.png", 100.0), ("001_x.png", 100.0), ("002_compare.png", 100.0)]
    assert [level(tmp_path / "out" / name) for name, _ in found] == [10, 20, 30]
    with Image.open(tmp_path / "out" / "compare.png") as sheet:
        assert sheet.width > 4  # originals and copies, enlarged


def test_test_images_are_of_several_classes_and_named_by_their_place(reconstruct, tmp_path):
    names = [name for name, _ in reconstruct(count=8)]
    places = [level(tmp_path / "out" / name) for name in names]

    assert names == [f"{number:03d}_test{place:06d}.png" for number, place in enumerate(places)]
    assert len({place // 10 for place in places}) > 3
    assert names == [name for name, _ in reconstruct(count=8)]


def test_reconstructions_of_before_are_gone_and_files_of_others_stay(reconstruct, tmp_path):
    reconstruct(count=8)
    (tmp_path / "out" / "003_mine.png").touch()
    found = reconstruct([picture(tmp_path / "x.png", 5)])

    left = {path.name for path in (tmp_path / "out").glob("*.png")}
    assert left == {"000_x.png", "003_mine.png", "compare.png"}
    record = read_json(tmp_path / "out" / "reconstructed.json")
    assert record == {"psnr": dict(found), "files": ["000_x.png"]}
