"""fork_damage.py SET OTHER KEY FILE HOW - damage a file of the set in this folder; OTHER is another set's"""
import hashlib
import hmac
import os
import re
import shutil
import sys

folder, other, key, name, how = sys.argv[1:]
path = os.path.join(folder, name)


def flip(at):
    with open(path, "r+b") as f:
        f.seek(at)
        byte = f.read(1)
        f.seek(at)
        f.write(bytes([byte[0] ^ 1]))


def first_data():
    fd = os.open(path, os.O_RDONLY)
    at = os.lseek(fd, 0, os.SEEK_DATA)
    os.close(fd)
    return at


def edit(pattern, text):
    """As whoever has the key would."""
    body = open(path).read().rsplit("mac ", 1)[0]
    body, n = re.subn(pattern, text, body, flags=re.M)
    assert n == 1, body
    mac = hmac.new(open(key, "rb").read(), body.encode(), hashlib.sha256).hexdigest()
    with open(path, "w") as f:
        f.write(f"{body}mac {mac}\n")


size = os.path.getsize(path)
{
    "flip": lambda: flip(first_data() + 100),
    "cut": lambda: os.truncate(path, size - min(size, 4096) // 2),
    "longer": lambda: os.truncate(path, size + 4096),
    "empty": lambda: os.truncate(path, 0),
    "missing": lambda: os.unlink(path),
    "other": lambda: shutil.copyfile(os.path.join(other, name), path),
    "foreign": lambda: (shutil.copyfile(os.path.join(other, "memory"), path), os.truncate(path, size)),
    "closure": lambda: edit("^closure .*", "closure " + "5" * 64),
    "format": lambda: edit("^hotcell-snapshot .*", "hotcell-snapshot 99"),
    "id": lambda: edit("^id .*", "id " + "5" * 32),
}[how]()
