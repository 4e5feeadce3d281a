"""Sixty surroundings that are broken or unusual; see `hostile.hosts`."""

import functools
import os
import shutil
from pathlib import Path

from hostile import conditions_of_stores
from hostile.hosts import CONDITIONS, Condition, Setting, condition

__all__ = ["CONDITIONS", "conditions_of_stores"]

_IMPORT = "import importlib; importlib.import_module('MODULE')\n"


def _variables(name: str, **variables: object) -> None:
    """Add a condition of environment variables; None removes one."""

    @condition(name)
    def change(setting: Setting) -> None:
        setting.unset = [key for key, value in variables.items() if value is None]
        setting.env |= {key: value for key, value in variables.items() if value is not None}


_DEFAULT = {"GDN_AOT_HOME": None, "XDG_CACHE_HOME": None}
_variables("HOME unset", HOME=None, **_DEFAULT)
_variables("HOME empty", HOME="", **_DEFAULT)
_variables("HOME a file", HOME="/etc/passwd", **_DEFAULT)
_variables("HOME not UTF-8", HOME=b"/nowhere/\xff\xfe", **_DEFAULT)
_variables(
    "HOME not UTF-8, C locale",
    HOME=b"/nowhere/\xff\xfe",
    LC_ALL="C",
    PYTHONUTF8="0",
    PYTHONCOERCECLOCALE="0",
    **_DEFAULT,
)
_variables("HOME with a newline", HOME="/nowhere/a\nb", **_DEFAULT)
_variables("HOME of 5,000 characters", HOME="/" + "x" * 5000, **_DEFAULT)
_variables("HOME relative", HOME="home", **_DEFAULT)
_variables("XDG_CACHE_HOME relative", GDN_AOT_HOME=None, XDG_CACHE_HOME="cache")
_variables("XDG_CACHE_HOME is ~", GDN_AOT_HOME=None, XDG_CACHE_HOME="~/x")
_variables("GDN_AOT_HOME relative", GDN_AOT_HOME="home")
_variables("GDN_AOT_HOME is ~", GDN_AOT_HOME="~nobody-here/x")
_variables("GDN_AOT_HOME a device", GDN_AOT_HOME="/dev/null")
_variables("GDN_AOT_HOME of 5,000 characters", GDN_AOT_HOME="/" + "x/" * 2500)
_variables(
    "garbage in every variable", GDN_AOT="\x1b[2J", GDN_AOT_ARTIFACT="\n", GDN_AOT_STRICT="x" * 5000, GDN_AOT_LOG="[]",
    GDN_AOT_ON_MISS=b"\xff", GDN_AOT_TRUST="%s", GDN_AOT_REPO="\x07", GDN_AOT_CAPTURE_DIR="/dev/null",
    GDN_AOT_SCRATCH="?",
)  # fmt: skip
_variables("log level debug", GDN_AOT_LOG="debug")
_variables("optimized, warnings are errors", PYTHONOPTIMIZE="2", PYTHONWARNINGS="error")
_variables("development mode", PYTHONDEVMODE="1", PYTHONWARNINGS="error")
_variables("no /tmp", TMPDIR="/nowhere")


def _code(name: str, before: str, after: str = "") -> None:
    """Add a condition that Python makes."""

    @condition(name)
    def change(setting: Setting) -> None:
        setting.before, setting.after = before, after


_code("8 threads", """
import threading
def around(go):
    failed = []
    def safe():
        try: go()
        except BaseException as error: failed.append(error)
    threads = [threading.Thread(target=safe) for _ in range(8)]
    [one.start() for one in threads]; [one.join() for one in threads]
    if failed: raise failed[0]
""")  # fmt: skip
_code("stderr closed", "sys.stderr.close()")
_code("stderr is None", "sys.stderr = None")
_code("stdout and stderr are None", "sys.stdout = sys.stderr = None")
_code("descriptors 0, 1 and 2 closed", "for number in range(3): os.close(number)")
_code("stderr of ASCII, strict", """
import io
sys.stderr = io.TextIOWrapper(io.BytesIO(), "ascii", "strict")
os.environ["GDN_AOT_ON_MISS"] = "\\u4e00"
""")  # fmt: skip
_code("no descriptors left", """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
import codecs, contextlib, errno, fnmatch, hashlib, importlib.util, json, logging, re, stat, struct, threading, typing
import gdn_aot.serving.loader, gdn_aot.plugins.vllm, gdn_aot.serving.log
with open(os.path.join(os.path.dirname(gdn_aot.__file__), "auto.py")) as file: text = file.read()
held = []
def around(go):  # no import of Python itself works
    try:
        while True: held.append(os.dup(result))
    except OSError: pass
    exec(text) if way == "auto" else go()
""")  # fmt: skip
_code("a finder of the old kind", "class Old: find_module = lambda *a: None\nsys.meta_path.insert(0, Old())", _IMPORT)
_code("a finder that raises", """
class Bad:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("vllm_"): raise RuntimeError(name)
sys.meta_path.insert(0, Bad())
""", _IMPORT)  # fmt: skip
_code("sys.meta_path refuses more", """
class Frozen(list):
    def insert(self, *_): raise TypeError("frozen")
    append = insert
sys.meta_path = Frozen(sys.meta_path)
""", _IMPORT)  # fmt: skip
_code(
    "sys.path has other things", "sys.path += [None, 3, b'/tmp', '', '/dev/zero', 'x' * 5000, '~']", "import colorsys"
)
_code("a log handler that raises", """
import logging
class Bad(logging.Handler):
    def emit(self, record): raise RuntimeError("no")
for name in ("", "gdn_aot", "vllm"): logging.getLogger(name).addHandler(Bad()); logging.getLogger(name).setLevel(1)
os.environ["GDN_AOT_ON_MISS"] = "x"
""")  # fmt: skip
_code(
    "logging switched off",
    "import logging; logging.disable(logging.CRITICAL); os.environ['GDN_AOT_ON_MISS'] = 'x'",
)
_code(
    "None in sys.modules", "for name in ('msgspec', 'zstandard', 'triton', 'torch', 'numpy'): sys.modules[name] = None"
)
_code("odd things in sys.modules", """
import triton
class Odd:
    def __getattr__(self, name): raise RuntimeError(name)
sys.modules["MODULE"] = Odd()
sys.modules[b"bytes"] = sys.modules["fla.odd"] = Odd()
""")  # fmt: skip
_code(
    "time stands still",
    "time.time = time.monotonic = lambda: 0.0; time.time_ns = lambda: 0; time.sleep = lambda seconds: None",
)
_code("umask 777", "os.umask(0o777)")
_code("an audit hook that forbids listing", """
def hook(event, args):
    listing = event in ("os.listdir", "os.scandir")
    if watching and listing and "site-packages" not in str(args): raise RuntimeError(event)
watching = False
sys.addaudithook(hook)
def around(go):
    global watching
    import importlib.util, logging, json, hashlib
    import gdn_aot.serving.loader, gdn_aot.plugins.vllm
    watching = True
    go()
    watching = False
""")  # fmt: skip
_code("no recursion left", "def around(go):\n    sys.setrecursionlimit(120)\n    go()\n    sys.setrecursionlimit(1000)")
_code("collector off and frozen", "import gc; gc.disable(); gc.freeze(); gc.set_threshold(1)")
_code("a thread with a small stack", """
import threading
threading.stack_size(64 << 10)
def around(go):
    failed = []
    def safe():
        try: go()
        except BaseException as error: failed.append(error)
    one = threading.Thread(target=safe); one.start(); one.join()
    if failed: raise failed[0]
""")  # fmt: skip
_code("open is somebody else's", """
import builtins
real = builtins.open
def bad(file, *a, **k):
    if "store" in str(file): raise RuntimeError("no")
    return real(file, *a, **k)
builtins.open = bad
""")  # fmt: skip
_code("in a forked child", """
child = os.fork()
if child: os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
if queue >= 0: queue = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
""")  # fmt: skip


@condition("as it should be")
def sound(setting: Setting) -> None:
    setting.after = _IMPORT


@condition("no store")
def no_store(setting: Setting) -> None:
    shutil.rmtree(setting.home)


@condition("an empty environment")
def no_environment(setting: Setting) -> None:
    kept = {name: setting.env[name] for name in ("PYTHONPATH", "GDN_AOT_HOME")}
    setting.unset = [*os.environ, *setting.env]
    setting.unset = [name for name in setting.unset if name not in kept]


@condition("sitecustomize imports it")
def early(setting: Setting) -> None:
    (setting.root / "site/sitecustomize.py").write_text("import gdn_aot.auto\n")


def _deleted(name: str, change: Condition) -> None:
    @condition(name)
    def place(setting: Setting) -> None:
        setting.before = "os.rmdir(os.getcwd())"
        setting.limits = functools.partial(_new_folder, str(setting.root))
        change(setting)


def _new_folder(root: str) -> None:
    place = f"{root}/cwd-{os.getpid()}"
    Path(place).mkdir()
    os.chdir(place)


def _relative(setting: Setting) -> None:
    setting.env["GDN_AOT_HOME"] = "home"
    setting.file = setting.artifact.name


def _relative_artifact(setting: Setting) -> None:
    setting.env["GDN_AOT_ARTIFACT"] = setting.artifact.name


_deleted("working directory deleted", lambda _: None)
_deleted("working directory deleted, relative names", _relative)
_deleted("working directory deleted, relative GDN_AOT_ARTIFACT", _relative_artifact)
