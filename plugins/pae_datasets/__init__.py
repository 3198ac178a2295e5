"""Built-in data sources. This registration module imports no torch."""

from pae_framework import hookimpl
from pae_framework.hookspecs import Register

pae_api = 1


@hookimpl
def pae_register_datasets(register: Register) -> None:
    """Register digits, idx, image_folder, parquet, shapes and webdataset."""
    register(
        "digits",
        target="pae_datasets.digits:Digits",
        config="pae_datasets.config:DigitsConfig",
        summary="1797 handwritten digits of scikit-learn; no download",
    )
    register(
        "idx",
        target="pae_datasets.idx:Idx",
        config="pae_datasets.config:IdxConfig",
        summary="files in MNIST's format, plain or gzipped (MNIST, Fashion-MNIST, KMNIST)",
    )
    register(
        "image_folder",
        target="pae_datasets.image_folder:ImageFolder",
        config="pae_datasets.config:ImageFolderConfig",
        summary="one folder of images per class, like ImageNet; ADM center crop",
    )
    register(
        "parquet",
        target="pae_datasets.parquet:Parquet",
        config="pae_datasets.config:ParquetConfig",
        summary="parquet files of images and labels, as Hugging Face stores them; ADM center crop",
    )
    register(
        "shapes",
        target="pae_datasets.shapes:Shapes",
        config="pae_datasets.config:ShapesConfig",
        summary="generated scenes of colored shapes with classes and exact masks; no files",
    )
    register(
        "webdataset",
        target="pae_datasets.webdataset:WebDataset",
        config="pae_datasets.config:WebDatasetConfig",
        summary="tar files of images and labels, as WebDataset writes them; ADM center crop",
    )
