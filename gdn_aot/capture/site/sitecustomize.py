"""Found first on ``PYTHONPATH`` by every Python that ``gdn-aot capture`` starts, and by all that those start.

Starts the recorder, then runs the ``sitecustomize`` that would have been found without this one. Whatever goes wrong
with the recorder, the process goes on as if it were not there.
"""

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))


def _record() -> None:
    folder = os.environ.get("GDN_AOT_CAPTURE_DIR")
    if not folder:
        return
    root = os.path.dirname(os.path.dirname(os.path.dirname(_HERE)))
    sys.path.append(root)  # only for this import: the folder may hold more than gdn_aot
    try:
        from gdn_aot.capture import recorder

        recorder.start(folder)
    except Exception as error:  # noqa: BLE001 - someone else's process
        said = " ".join(ascii(str(error))[1:-1][:300].split())
        sys.stderr.write(f"gdn-aot: this process is not recorded: {type(error).__name__}: {said}\n")
    finally:
        sys.path.reverse()
        sys.path.remove(root)  # the last of it, which is ours
        sys.path.reverse()


def _chain() -> None:
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    places = [place for place in sys.path if os.path.abspath(place or ".") != _HERE]
    spec = PathFinder.find_spec("sitecustomize", places)
    if spec is not None and spec.loader is not None:
        module = module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


_record()
_chain()
