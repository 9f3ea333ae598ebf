"""Image files of a folder, found for annotations that lie somewhere else."""

import os
import re
from collections import Counter, defaultdict
from pathlib import Path, PurePath
from urllib.parse import unquote

from .decode import SUFFIXES
from .text_files import composed, visible_files

SPLIT_WORDS = {
    **dict.fromkeys(('train', 'training'), 'train'),
    **dict.fromkeys(('val', 'valid', 'validation', 'dev'), 'val'),
    **dict.fromkeys(('test', 'testing'), 'test'),
}


class ImageIndex:
    """The images below a folder by path, by name and by name without its ending; no hidden ones.

    Args:
        root: the folder.

    Raises:
        ValueError: it does not exist, or has no image below it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        if not root.is_dir():
            raise ValueError(f'the image folder {root} does not exist')
        self.paths = [
            path.relative_to(root)
            for path in visible_files(root, '*')
            if path.suffix.lower() in SUFFIXES
        ]
        if not self.paths:
            raise ValueError(
                f'no image below {root}: expected names in {" ".join(SUFFIXES)}, or their folder '
                'by `--images`'
            )
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        self._by_path = {composed(path.as_posix()): path for path in self.paths}
        self._folders: set[str] = set()
        for path in self.paths:
            self._folders.update(path.parent.parts)
            self._by_name[composed(path.name)].append(path)
            self._by_stem[composed(path.stem)].append(path)

    def named(self, name: str, near: Path) -> Path | None:
        """The image of a name with its ending, which may begin with folders, near a path.

        Where the last of these folders is there, the image is in it.
        """
        # a Windows path, or a web address with what was asked for, as which Label Studio has a file
        text = composed(name).replace('\\', '/')
        path = PurePath(text.partition('?d=')[2] or text.partition('?')[0])
        if path.name not in self._by_name:
            path = PurePath(composed(unquote(str(path))))
        candidates = self._by_name.get(path.name, [])
        if (folder := path.parent.name) in self._folders:
            candidates = [image for image in candidates if folder in image.parent.parts]
        return nearest(candidates, Path(near, path), self.root)

    def at(self, name: str, near: Path) -> Path | None:
        """The image of a path, which counts from the folder of a file, or else from this one."""
        root = Path(os.path.abspath(self.root))
        for base in (near.parent, root):
            path = Path(os.path.abspath(base / name))
            if path.is_relative_to(root):
                path = path.relative_to(root)
                if (root / path).is_file():
                    return path
                if (found := self._by_path.get(composed(path.as_posix()))) is not None:
                    return found
        return None

    def listed(self, name: str, near: Path) -> Path | None:
        """The image of a path, as `at` finds it, or else of the same name."""
        return self.at(name, near) or self.named(name, near)

    def has_stem(self, file: Path) -> bool:
        """Whether an image, or several, have the name of a file, as `of_stem` has it."""
        return bool(self._of_stem(file))

    def of_stem(self, file: Path) -> Path | None:
        """The image of `7.xml`, which is called 7 and an ending, or of `7.jpg.xml`, near it."""
        return nearest(self._of_stem(file), file, self.root)

    def _of_stem(self, file: Path) -> list[Path]:
        stem = composed(file.stem)
        return self._by_stem.get(stem) or self._by_name.get(stem, [])


def nearest(candidates: list[Path], file: Path, root: Path) -> Path | None:
    """The candidate that shares the most folders with a file; None if it is not one alone.

    So `train/images/7.jpg` belongs to `train/labels/7.txt`, and `val/images/7.jpg` does not. Where
    several do, that of the same split, so that `train2017/7.jpg` belongs to `instances_train.json`,
    and then that which lies as deep: `images/7.jpg`, not `images/a/7.jpg`, for `labels/7.txt`.

    Args:
        candidates: relative to `root`.
        file: under `root` or elsewhere.
    """
    if len(candidates) < 2:
        return candidates[0] if candidates else None
    inside = file.relative_to(root) if file.is_relative_to(root) else file
    here = Counter(inside.parts)
    shared = [(here & Counter(candidate.parts)).total() for candidate in candidates]
    best = [path for path, count in zip(candidates, shared) if count == max(shared)]
    if len(best) > 1:
        best = [path for path in best if split_in(path) == split_in(inside)]
    if len(best) > 1:
        best = [path for path in best if len(path.parts) == len(inside.parts)]
    return best[0] if len(best) == 1 else None


def split_in(path: PurePath) -> str | None:
    """'train', 'val' or 'test' if a folder of a path says so, the last one first, or its name."""
    for part in (*reversed(path.parts[:-1]), path.name):
        found = {SPLIT_WORDS[w] for w in re.findall('[a-z]+', part.lower()) if w in SPLIT_WORDS}
        if len(found) == 1:
            return found.pop()
    return None
