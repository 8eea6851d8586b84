"""Runs as root in a forked machine: everything a guest may try on memory and disks that it shares with others."""
import ctypes
import glob
import mmap
import os
import subprocess
import sys

rounds = int(sys.argv[1])


def read(path):
    with open(path) as f:
        return f.read().strip()


# Devices that give memory back to the host would be 5 (balloon) and 24 (virtio-mem); 2 is a disk, 3 a console.
kinds = sorted(int(read(f), 16) for f in glob.glob("/sys/bus/virtio/devices/*/device"))
assert kinds == [2, 2, 3], kinds
for bus in "pci", "xen", "vmbus", "nvdimm", "dax":
    found = glob.glob(f"/sys/bus/{bus}/devices/*")
    assert not found, found
for name in "virtio_balloon", "virtio_mem", "virtio_pmem", "hv_balloon":
    assert not glob.glob(f"/sys/bus/*/drivers/{name}/*:*") and not glob.glob(f"/sys/bus/virtio/drivers/{name}/virtio*")

for block in glob.glob("/sys/devices/system/memory/memory*/online"):
    try:
        with open(block, "w") as f:
            f.write("0")
    except OSError:
        pass

# Storms over most of memory, given back in every way there is.
free = next(int(line.split()[1]) for line in open("/proc/meminfo") if line.startswith("MemAvailable"))
size = free * 1024 // 2 & ~0xFFFFF
libc = ctypes.CDLL(None)
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
for flags in (mmap.MAP_PRIVATE, mmap.MAP_SHARED) * rounds:
    m = mmap.mmap(-1, size, flags | mmap.MAP_ANONYMOUS)
    page = os.urandom(4096)
    for at in range(0, size, 4096):
        m[at:at + 4096] = page
    at = ctypes.addressof(ctypes.c_char.from_buffer(m))
    for advice in 8, 9, 21, 4:  # FREE, REMOVE, PAGEOUT, DONTNEED
        libc.madvise(at, size, advice)
for what in "drop_caches", "compact_memory":
    with open(f"/proc/sys/vm/{what}", "w") as f:
        f.write("3")

# The kernel's own memory, if it lets us.
try:
    os.mknod("/tmp/mem", 0o20600, os.makedev(1, 1))
    with open("/tmp/mem", "r+b", buffering=0) as f:
        f.seek(0x1000)
        f.write(bytes(4096))
    print("mem written")
except OSError as e:
    print("mem refused", e.errno)

# Disks: the template's is the first, ours the second.
writes = []
for disk in "/dev/vda", "/dev/vdb":
    minor = read(f"/sys/block/{os.path.basename(disk)}/dev").split(":")
    path = "/tmp/" + os.path.basename(disk)
    os.mknod(path, 0o60600, os.makedev(*map(int, minor)))
    subprocess.run(["fstrim", "-a"], stderr=subprocess.DEVNULL)
    subprocess.run(["blkdiscard", "-f", path], stderr=subprocess.DEVNULL)
    try:
        with open(path, "r+b", buffering=0) as f:
            for at in range(0, 64 << 20, 1 << 20):
                f.seek(at)
                f.write(bytes(1 << 20))
        os.sync()
        writes.append(disk)
    except OSError:
        pass
print("wrote", *writes)
