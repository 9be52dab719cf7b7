"""Datasets by name: the built-in one."""

from __future__ import annotations

from pathlib import Path

from headstart.atomic import folder_written_whole

DIGITS = "digits"


def digits_folder(cache: Path) -> Path:
    """Write scikit-learn's 1,797 handwritten digits (8x8, UCI Optical Recognition) as a folder of PNG files.

    Returns:
        The folder, with a folder per class `0` to `9`; written once, then reused.
    """
    folder = cache / "datasets" / DIGITS
    if not folder.exists():
        from PIL import Image
        from sklearn.datasets import load_digits

        digits = load_digits()
        with folder_written_whole(folder) as draft:
            for index, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
                target = draft / str(label) / f"{index:04d}.png"
                target.parent.mkdir(exist_ok=True)
                # The digits are 4-bit, 0 to 16.
                Image.fromarray((pixels * 255 / 16).round().astype("uint8")).save(target)
    return folder
