"""Start the child process: `python -I -S -B __main__.py FOLDER_OF_NUMPY FOLDER_OF_H5PY HAS_NUMBERS MEMORY SECONDS`.

Of minimobile nothing but this folder is imported, under a name of its own.
"""

import importlib
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

if __name__ == "__main__":
    home = Path(__file__).parent
    spec = spec_from_file_location("hdf5_child", str(home / "__init__.py"), submodule_search_locations=[str(home)])
    assert spec is not None
    assert spec.loader is not None
    sys.modules["hdf5_child"] = package = module_from_spec(spec)
    spec.loader.exec_module(package)
    sys.path += sys.argv[1:3]
    importlib.import_module("hdf5_child.serve").main(*map(int, sys.argv[3:]))
