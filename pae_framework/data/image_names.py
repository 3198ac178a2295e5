"""Which file names are those of images. No torch."""

IMAGE_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("apng", "avif", "bmp", "dib", "gif", "j2c", "j2k", "jfif", "jp2", "jpc", "jpe", "jpeg"),
        *("jpf", "jpg", "jpx", "pbm", "pcx", "pgm", "png", "pnm", "ppm", "qoi", "ras", "sgi"),
        *("tga", "tif", "tiff", "webp"),
    )
)
"""Suffixes of the pictures that Pillow reads; of animations, the first frame counts. Pillow also
reads icons, textures, layered and measured images, which rarely are what a class consists of."""
