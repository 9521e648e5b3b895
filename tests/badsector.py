"""A disk that fails: reading certain bytes of a file gives the system's error EIO."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* read(2) fails with EIO from byte BAD_FIRST up to BAD_END of the file whose inode is BAD_INODE. */
ssize_t read(int fd, void *buffer, size_t count) {
    static ssize_t (*real)(int, void *, size_t);
    static unsigned long long inode;
    static off_t first, end;
    if (!real) {
        inode = strtoull(getenv("BAD_INODE"), NULL, 10);
        first = strtoll(getenv("BAD_FIRST"), NULL, 10);
        end = strtoll(getenv("BAD_END"), NULL, 10);
        real = (ssize_t (*)(int, void *, size_t))dlsym(RTLD_NEXT, "read");
    }
    struct stat about;
    if (count && fstat(fd, &about) == 0 && S_ISREG(about.st_mode) && about.st_ino == inode) {
        off_t at = lseek(fd, 0, SEEK_CUR);
        if (at >= first && at < end) {
            errno = EIO;
            return -1;
        }
        if (at < first && at + (off_t)count > first) count = first - at;
    }
    return real(fd, buffer, count);
}
"""


def build(folder: Path) -> Path | None:
    """The shared library that makes reading fail; None where there is no C compiler, or no such loader."""
    compiler = shutil.which("cc")
    if compiler is None or os.uname().sysname != "Linux":
        return None
    source, library = folder / "badsector.c", folder / "badsector.so"
    source.write_text(SHIM, encoding="ascii")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


def environment(library: Path, file: Path, first: int, end: int) -> dict[str, str]:
    """What makes a process fail to read a file from a byte up to another one."""
    bad = {"BAD_INODE": file.stat().st_ino, "BAD_FIRST": first, "BAD_END": end}
    return {"LD_PRELOAD": str(library), **{name: str(value) for name, value in bad.items()}}
