"""mmdet's own command lines, as its wheel ships them."""

import runpy
from pathlib import Path

import mmdet


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
    runpy.run_path(str(script), run_name='__main__')
