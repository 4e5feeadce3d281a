"""What verifying a file costs."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import resource, sys, time
from gdn_aot.cli.main import run
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
codes = [run(["verify", sys.argv[1]]), run(["inspect", "--json", sys.argv[1]])]
assert time.process_time() < 20, "10 s for each"
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(codes, peak // 1024, file=sys.stderr)
"""


def memory_of_verify(path: Path, code: int = 5) -> int:
    """Run verify and inspect in a process of their own; return the most memory they took, in MiB."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(path)], capture_output=True, text=True, check=False)
    *_, last = done.stderr.splitlines()
    assert "Traceback" not in done.stderr
    codes, memory = last.rsplit(" ", 1)
    assert codes == f"[{code}, {code}]", done.stderr
    return int(memory)
