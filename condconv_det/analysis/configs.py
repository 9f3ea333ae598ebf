"""Config files as a command line gets them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config


def read_config(path: Path | str, options: Mapping[str, Any] | None = None) -> Config:
    """The config of a network.

    Args:
        path: of the file.
        options: overrides by dotted key, as `--cfg-options` gives them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a config file, or has no model.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'config {path} does not exist')
    try:
        cfg = Config.fromfile(path)
    except (SyntaxError, OSError) as error:  # OSError: of a suffix that mmengine does not know
        raise ValueError(f'{path} is not a config file: {error}') from error
    cfg.merge_from_dict(dict(options or {}))
    if 'model' not in cfg:
        raise ValueError(f'config {path} has no model: expected a detector or a classifier')
    return cfg
