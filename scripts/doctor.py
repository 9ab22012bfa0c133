"""Looks at this machine and says whether the programs can run on it, and what to do where they cannot.

    python scripts/doctor.py [--device_target=GPU]

Exit 0, or 4 when something is missing that even a CPU needs, with --device_target=GPU that a GPU needs. It needs
the standard library alone, of Python 3.8 or newer, and looks for what MindSpore 2.10 needs.
"""
import importlib.util
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
if sys.version_info < (3, 8):  # noqa: UP036  (the modules below are not for older ones, so this file has no __future__)
    sys.stderr.write(f"error: Python {platform.python_version()} is too old; MindSpore 2.10 needs 3.10 to 3.12\n")
    sys.exit(4)
from src.arguments import ArgumentParser  # noqa: E402  (found by way of sys.path; standard library only, as the next)
from src.errors import EnvironmentFault, run_main  # noqa: E402
from src.machine import cpu_library, cuda, process  # noqa: E402

MIN_MEMORY = 4  # GB
MIN_SPEED = 3   # billion operations a second; below it oneDNN uses its reference kernels
PROBE = """
import json, sys, time
sys.path.insert(0, {root!r})
from src.machine import process
process.prepare("{device}")
begun = time.time()
import numpy as np, mindspore as ms
from src.machine import distributed
facts = dict(version=ms.__version__, seconds=time.time() - begun)
distributed.start("{device}")
layer = ms.nn.Conv2d(64, 64, 3, pad_mode="same", weight_init="ones")
images = ms.Tensor(np.ones((1, 64, 56, 56), np.float32))
facts["exact"] = float(layer(images).asnumpy()[0, 0, 20, 20]) == 576
begun = time.time()
layer(images).asnumpy()
facts["speed"] = 2 * 9 * 64 * 64 * 56 * 56 / (time.time() - begun) / 1e9
print(json.dumps(facts))
"""
PAIR = "from mpi4py import MPI; print(MPI.COMM_WORLD.Get_size(), flush=True)"
INSTALL = "run 'bash scripts/setup_env.sh', then use .venv/bin/python"


class Findings:
    """Prints the table line by line and keeps what has to be done."""

    def __init__(self) -> None:
        self.remedies, self.fatal = [], False

    def line(self, mark: str, name: str, text: str) -> None:
        """A line of the table; mark: ok, -- (a limit) or !! (nothing runs)."""
        print(f"  {mark}  {name:<26} {text}", flush=True)

    def good(self, name: str, text: str) -> None:
        """A line of the table without a problem."""
        self.line("ok", name, text)

    def bad(self, name: str, text: str, remedy: str, *, fatal: bool = False) -> None:
        """A line of the table with a problem and its remedy. fatal: not even a CPU run is possible."""
        self.line("!!" if fatal else "--", name, text)
        self.remedies.append(f"{name}: {remedy}")
        self.fatal |= fatal


def main() -> int:
    """Prints the table, then one line a problem -> exit code."""
    parser = ArgumentParser(__doc__)
    parser.add_argument("--device_target", choices=("CPU", "GPU"), default="CPU", help="where the programs will run")
    options = parser.parse_args()
    findings = Findings()
    check_machine(findings)
    missing = check_packages(findings)
    process.prepare()
    if "mindspore" not in missing:
        check_mindspore(findings)
    check_launchers(findings, "mpi4py" not in missing)
    usable = check_gpu(findings)
    if options.device_target == "GPU" and not usable:
        remedy = "the driver, CUDA 11 or plugin named above" if cuda.open_driver() else "an NVIDIA driver"
        findings.bad("--device_target=GPU", "cannot be used", f"needs {remedy}; or use --device_target=CPU", fatal=True)
    check_folder(findings)
    print("\n  ".join(["\nwhat to do:", *findings.remedies]) if findings.remedies else "\nall is well")
    return 4 if findings.fatal else 0


def check_machine(findings: Findings) -> None:
    """Python, platform, cores, memory."""
    text = f"{platform.python_version()} ({sys.executable})"
    if (3, 10) <= sys.version_info[:2] <= (3, 12):
        findings.good("Python", text)
    else:
        findings.bad("Python", text, "MindSpore 2.10 needs 3.10, 3.11 or 3.12: "
                     "PYTHON=/path/to/python3.11 bash scripts/setup_env.sh", fatal=True)
    findings.good("platform", platform.platform())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    findings.good("processor cores", f"{cores} for this process, {os.cpu_count()} in the machine")
    compiler = cpu_library.find_compiler()
    if compiler:
        findings.good("C++ compiler", f"{' '.join(compiler)}, for the kernels of a training on CPU")
    else:
        findings.bad("C++ compiler", "none", "a training on CPU is slower without: 'apt install g++' (Debian, Ubuntu)")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    if memory >= MIN_MEMORY:
        findings.good("memory", f"{memory:.1f} GB")
    else:
        findings.bad("memory", f"{memory:.1f} GB", "training needs 1.5 GB for ssd300_mobilenet_v2, more for the "
                     "others; use a smaller --batch_size, one process, and no other programs")


def check_packages(findings: Findings) -> "list[str]":
    """The version of every pinned package beside the one that was tested -> the names of the missing ones."""
    with open(os.path.join(ROOT, "requirements.txt"), encoding="utf-8") as file:
        direct, _, indirect = file.read().partition("\n\n")  # what we ask for, and what that needs
    direct, indirect = read_pins(direct), read_pins(indirect)
    found = {name: cuda.installed(name) for name in {**direct, **indirect}}
    for name, wanted in direct.items():
        if found[name] == wanted:
            findings.good(name, wanted)
        else:
            findings.line("--" if found[name] else "!!", name, f"{found[name] or 'missing'}, tested with {wanted}")
    fitting = sum(found[name] == wanted for name, wanted in indirect.items())
    mark = "ok" if fitting == len(indirect) else "--"
    findings.line(mark, f"{len(indirect)} more they need", f"{fitting} in the tested version")
    missing = [name for name in found if not found[name]]
    if missing:
        findings.remedies.append(f"missing: {', '.join(missing)}: {INSTALL}")
        findings.fatal = True
    others = [f"{name} {found[name]} instead of {wanted}" for name, wanted in {**direct, **indirect}.items()
              if found[name] not in (None, wanted)]
    if others:
        findings.remedies.append(f"other versions: {', '.join(others)}: if something goes wrong, "
                                 "'pip install -r requirements.txt' installs the tested ones")
    return missing


def read_pins(text: str) -> "dict[str, str]":
    """{package: version} of the lines name==version."""
    return dict(re.findall(r"^([\w.-]+)==([\w.]+)", text, re.MULTILINE))


def check_mindspore(findings: Findings) -> None:
    """Imports MindSpore in another process and times a convolution."""
    facts, reason = probe("CPU", 300)
    if not facts:
        findings.bad("MindSpore on CPU", reason, f"it cannot be imported or computes nothing; {INSTALL}", fatal=True)
        return
    findings.good("import mindspore", f"{facts['seconds']:.1f} s")
    limit = "kernels of oneDNN up to " + os.environ["ONEDNN_MAX_CPU_ISA"]
    speed = f"{facts['speed']:.1f} billion operations a second, {limit}"
    if not facts["exact"]:
        findings.bad("convolution on CPU", f"a wrong result, {limit}", "unset ONEDNN_MAX_CPU_ISA and try again; if it "
                     "stays wrong, MindSpore 2.10 cannot use this processor", fatal=True)
    elif facts["speed"] < MIN_SPEED:
        findings.bad("convolution on CPU", speed, "far too slow: other programs use the processor, or oneDNN uses its "
                     "reference kernels; 'unset ONEDNN_MAX_CPU_ISA' lets the programs choose AVX2")
    else:
        findings.good("convolution on CPU", speed)


def probe(device: str, seconds: float) -> "tuple[dict, str]":
    """What PROBE prints for a device; {} where it fails, and why."""
    done = start([sys.executable, "-c", PROBE.format(device=device, root=ROOT)], seconds)
    try:
        return json.loads(done.stdout.splitlines()[-1]), ""
    except (IndexError, ValueError):
        lines = [f"exit {done.returncode}", *(line for line in done.stderr.splitlines() if line.strip("- "))]
        return {}, lines[-1][:200]


def check_launchers(findings: Findings, has_mpi4py: bool) -> None:
    """mpirun with a pair of processes, msrun, and the name of this host, which a cluster needs."""
    for name in ("mpirun", "msrun"):
        beside = os.path.join(os.path.dirname(sys.executable), name)
        if shutil.which(name):
            findings.good(name, shutil.which(name))
        elif os.path.exists(beside):
            findings.bad(name, f"{beside}, not on PATH",
                         f"to type it: export PATH={os.path.dirname(beside)}:$PATH (scripts/run_*.sh do not need that)")
        else:
            findings.bad(name, "not found", f"only distributed training needs it; {INSTALL}")
    if shutil.which("mpirun") and has_mpi4py:
        check_pair(findings)
    try:
        socket.gethostbyname(socket.gethostname())
    except OSError:
        findings.bad("host name", f"{socket.gethostname()} has no address", "only distributed training needs one: add "
                     f"'127.0.0.1 {socket.gethostname()}' to /etc/hosts")


def check_pair(findings: Findings) -> None:
    """Starts two processes with mpirun."""
    launch = "mpirun --allow-run-as-root --oversubscribe --bind-to none -n 2".split()
    done = start([*launch, sys.executable, "-c", PAIR], 60)
    if done.stdout.split() == ["2", "2"]:
        findings.good("two processes of mpirun", "find each other")
    else:
        lines = [*(line for line in done.stderr.splitlines() if line.strip("- ")), "no answer"]
        findings.bad("two processes of mpirun", lines[0][:150], "only distributed training needs it; is another MPI "
                     f"on the PATH or in LD_LIBRARY_PATH? ({shutil.which('mpirun')})")
    if os.geteuid() == 0:
        findings.bad("user is root", "plain mpirun refuses root", "mpirun --allow-run-as-root ..., or export "
                     "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 (scripts/run_*.sh do the first)")


def check_gpu(findings: Findings) -> bool:
    """The NVIDIA driver with its cards, CUDA 11, MindSpore's plugin; a CPU needs none. Returns whether all work."""
    driver = cuda.open_driver() is not None
    usable = driver and check_driver(findings)
    if not driver:
        findings.good("NVIDIA driver", "none: --device_target=CPU only")
    libraries, why_not = cuda.user_cuda()
    if libraries:
        findings.good("CUDA 11", "yours: CUDA_HOME=" + os.environ["CUDA_HOME"])
    else:
        libraries = check_cuda_packages(findings, driver, why_not)
    for name, file in sorted(libraries.items()):
        findings.good(name, file)
    return bool(libraries) and check_plugin(findings, libraries, driver) and usable and check_gpu_convolution(findings)


def check_driver(findings: Findings) -> bool:
    """Cards and driver. Returns whether it can be used."""
    done = start(["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"], 30)
    cards = done.stdout.strip().splitlines() if done.returncode == 0 else []
    for number, card in enumerate(cards):
        findings.good(f"card {number}, driver, memory", card)
    try:
        findings.good("NVIDIA driver", f"for CUDA up to {cuda.check_driver()}")
    except EnvironmentFault as error:
        findings.bad("NVIDIA driver", "cannot be used", str(error))
        return False
    return True


def check_cuda_packages(findings: Findings, driver: bool, why_not: str) -> "dict[str, str]":
    """CUDA 11 of requirements-gpu.txt: {library: file}, empty unless it can be used. why_not: why not the user's."""
    try:
        libraries = cuda.use_packages(why_not)
    except EnvironmentFault as error:
        if driver or cuda.package_libraries()[0]:
            findings.bad("CUDA 11", "cannot be used", str(error))
        else:
            findings.good("CUDA 11", "; ".join(filter(None, ["none (only a GPU needs it)", why_not])))
        return {}
    findings.good("CUDA 11", ", because ".join(filter(None, ["of requirements-gpu.txt", why_not])))
    return libraries


def check_plugin(findings: Findings, libraries: "dict[str, str]", driver: bool) -> bool:
    """Whether MindSpore's plugin finds every library it links."""
    spec = importlib.util.find_spec("mindspore")
    name = "libmindspore_gpu.so." + ("11.1" if cuda.nvcc_release(os.environ["CUDA_HOME"]) < "11.6" else "11.6")
    plugin = os.path.join(os.path.dirname(spec.origin) if spec else "", "lib", "plugin", name)
    folders = dict.fromkeys([*map(os.path.dirname, libraries.values()), os.environ.get("LD_LIBRARY_PATH", "")])
    done = start(["ldd", plugin], 60, LD_LIBRARY_PATH=":".join(folders))
    missing = [library for library in re.findall(r"(\S+) => not found", done.stdout)
               if driver or library != "libcuda.so.1"]
    if done.returncode or missing:
        reason = f"does not find {', '.join(missing)}" if missing else f"ldd fails: {done.stderr.strip()[:150]}"
        findings.bad(name, reason, f"MindSpore cannot load its GPU back end; {cuda.INSTALL}")
    else:
        findings.good(name, "finds all its libraries" if driver else "finds all its libraries but the driver's")
    return not missing and not done.returncode


def check_gpu_convolution(findings: Findings) -> bool:
    """Whether a convolution on the card is right; the first one may compile kernels for minutes."""
    facts, reason = probe("GPU", 1200)
    if facts.get("exact"):
        findings.good("convolution on GPU", f"{facts['speed']:.1f} billion operations a second")
        return True
    findings.bad("convolution on GPU", reason or "a wrong result", "MindSpore cannot use this card: docs/gpu.md")
    return False


def check_folder(findings: Findings) -> None:
    """Whether runs can be written here."""
    folder = os.getcwd()
    free = shutil.disk_usage(folder).free / 1e9
    if os.access(folder, os.W_OK):
        findings.good("this folder", f"can be written, {free:.0f} GB free ({folder})")
    else:
        findings.bad("this folder", f"cannot be written ({folder})",
                     "give the programs --output_path and --mindrecord_dir below a folder that can be")


def start(command: "list[str]", seconds: float, **variables: str) -> subprocess.CompletedProcess:
    """Runs a command; one that does not exist or does not end counts as failed, with the reason in stderr."""
    try:
        return subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=seconds,
                              check=False, env={**os.environ, **variables})
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


if __name__ == "__main__":
    run_main(main)
