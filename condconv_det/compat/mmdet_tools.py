"""mmdet's own command lines, as its wheel ships them."""

import runpy
from pathlib import Path

import mmdet
import torch


def run_mmdet_tool(name: str) -> None:
    """Runs a script of mmdet's tools/ as the main program, on this program's arguments.

    Raises:
        FileNotFoundError: mmdet is installed without its tools.
    """
    script = Path(mmdet.__file__).parent / '.mim' / 'tools' / name
    if not script.is_file():
        raise FileNotFoundError(
            f'{script} does not exist: this mmdet was installed without its tools; '
            'install it with `pip install mmdet==3.3.0`'
        )
    if torch.distributed.is_torchelastic_launched() and not torch.cuda.is_available():
        # mmengine 0.10 picks a GPU before it makes the process group, even for gloo.
        torch.distributed.init_process_group('gloo')
    runpy.run_path(str(script), run_name='__main__')
