"""Other walls that a user could pick without KVM, and how they are started."""
import shutil
from pathlib import Path

from .duel import Skip


def bwrap(tree, *program):
    if not shutil.which("bwrap"):
        raise Skip("bwrap is not installed: apt-get install bubblewrap")
    return ["bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", str(tree), "/",
            "--tmpfs", "/tmp", "--proc", "/proc", "--dev", "/dev", *program]


def runsc_program(peers):
    found = shutil.which("runsc")
    if found:
        return found
    unpacked = Path(peers) / "runsc"
    if not unpacked.exists():
        raise Skip(f"runsc is neither installed nor in {peers}: run bench/peers/prepare")
    return str(unpacked)


def runsc_do(peers, state, tree, *program):
    """platform ptrace: gVisor's own kvm platform hangs where KVM interprets the guest's kernel mode.
    No network and no cgroups, because bwrap and `process` sandboxes have no network either and
    cgroup set-up would only slow it down."""
    return [runsc_program(peers), f"--root={state}", "--platform=ptrace", "--network=none",
            "--ignore-cgroups", "do", "--root", str(tree), *program]
