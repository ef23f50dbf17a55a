"""The few file operations of the journal, in one place so that tests can record and fail them."""

import fcntl
import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Make creations, renamings and deletions in a folder durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder that only this user sees, durably, with its parents; harmless where it is. Raises OSError."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    sync_folder(folder.parent)  # else a power loss takes the folder and all that was synced in it


class Disk:
    """Blocking file operations. Each raises OSError as the operating system does."""

    def names(self, folder: Path) -> list[str]:
        """The names in a folder, which is made when missing."""
        make_folder(folder)
        return os.listdir(folder)

    def read(self, path: Path) -> bytes:
        return path.read_bytes()

    def create(self, path: Path) -> int:
        """A descriptor to append to a new file. Raises FileExistsError rather than touch an old one."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, descriptor: int, data: bytes) -> None:
        """Append all of `data`. Not durable before `sync`."""
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]

    def sync(self, descriptor: int) -> None:
        os.fdatasync(descriptor)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def sync_folder(self, folder: Path) -> None:
        """Make creations and deletions in a folder durable."""
        sync_folder(folder)


class InUse(RuntimeError):
    """Another process holds the file or folder."""


class FileLock:
    """Keeps a second process from using a file. The operating system lets go of it however this process ends."""

    def __init__(self, path: Path, what: str) -> None:
        """`path` is made where it is missing; `what` says in an error what a second gateway needs of its own.

        Raises InUse, OSError.
        """
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise InUse(f"{path} is in use by another gateway; stop it, or give this one {what} of its own") from None
        except OSError:
            os.close(self._descriptor)
            raise

    def release(self) -> None:
        os.close(self._descriptor)


def lock_folder(folder: Path) -> FileLock:
    """Keep a second process out of a folder, which is made where it is missing. Raises InUse, OSError."""
    make_folder(folder)
    return FileLock(folder / "LOCK", "a folder")
