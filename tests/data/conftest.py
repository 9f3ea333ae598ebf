"""Small data sets in the formats that people bring, written file by file."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

WIDTH, HEIGHT = 40, 30
BOX = (4, 6, 20, 12)  # x, y, width, height


class Files:
    """A folder of images and annotations; each image is unlike the others."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rng = np.random.default_rng(0)

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def image(self, name: str, like: str | None = None) -> Path:
        """Writes a blurred image, or one that resembles another."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if like is None:
            coarse = self.rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
            pixels = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)
        else:
            pixels = cv2.imread(str(self.root / like)).astype(int)
            pixels = np.clip(pixels + self.rng.integers(-5, 6, pixels.shape), 0, 255)
        cv2.imwrite(str(path), pixels.astype(np.uint8))
        return path

    def voc(self, name: str, *labels: str, filename: str = '') -> Path:
        """An xml with the same box for each label; VOC counts pixels from 1."""
        x, y, width, height = BOX
        corners = f'<xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{x + width}</xmax>'
        corners += f'<ymax>{y + height}</ymax>'
        objects = ''.join(
            f'<object><name>{label}</name><bndbox>{corners}</bndbox></object>' for label in labels
        )
        size = f'<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>'
        return self.write(
            name, f'<annotation><filename>{filename}</filename>{size}{objects}</annotation>'
        )

    def yolo(self, name: str, *labels: int) -> Path:
        """A text file with the same box for each label."""
        x, y, width, height = BOX
        numbers = (x + width / 2) / WIDTH, (y + height / 2) / HEIGHT, width / WIDTH, height / HEIGHT
        line = ' '.join(f'{number:.6f}' for number in numbers)
        return self.write(name, ''.join(f'{label} {line}\n' for label in labels))

    def coco(self, name: str, images: dict[str, list[str]], classes: list[str], **keys) -> Path:
        """A json of file names with the labels of their boxes; keys are added to each image."""
        data = dict(
            images=[],
            annotations=[],
            categories=[dict(id=i, name=c) for i, c in enumerate(classes)],
        )
        for number, (file_name, labels) in enumerate(images.items()):
            image = dict(id=number, file_name=file_name, width=WIDTH, height=HEIGHT)
            data['images'].append({**image, **keys})
            for label in labels:
                annotation = dict(image_id=number, category_id=classes.index(label), iscrowd=0)
                annotation.update(bbox=list(BOX), area=BOX[2] * BOX[3])
                data['annotations'].append(dict(annotation, id=len(data['annotations']) + 1))
        return self.write(name, json.dumps(data))


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path / 'source')
