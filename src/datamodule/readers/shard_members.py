"""Single pictures out of tar shards, for what shows a few of them: samples, word maps, the report."""

import tarfile
from functools import lru_cache
from pathlib import Path

KEPT_INDICES = 16  # shards whose table of contents is kept


def read_member(path: str | Path, limit: int) -> bytes:
    """The bytes of `<folder>/00003.tar/000030012.jpg`; upper and lower case of a name are one.

    Raises:
        OSError: no part of the path is a tar file, it holds no such member, or one of no bytes or over `limit`.
    """
    path = Path(path)
    shard = next((parent for parent in path.parents if parent.is_file()), None)
    if shard is None:
        raise FileNotFoundError(2, "No such file or directory")
    found = shard.stat()
    name = path.relative_to(shard).as_posix()
    first, size = _contents(str(shard), found.st_size, found.st_mtime_ns).get(name.lower(), (0, 0))
    if not 0 < size <= limit:
        raise FileNotFoundError(2, f"No picture of 1 to {limit:,} bytes of that name in the shard")
    with shard.open("rb") as file:
        file.seek(first)
        return file.read(size)


@lru_cache(KEPT_INDICES)
def _contents(shard: str, size: int, changed: int) -> dict[str, tuple[int, int]]:
    """First byte and number of bytes of each file in a shard; `size` and `changed` keep the cache true."""
    members = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # tarfile would keep every header
                if member.isreg() and not member.issparse() and member.offset_data + member.size <= size:
                    members[member.name.lower()] = (member.offset_data, member.size)
    except tarfile.TarError as error:
        raise OSError(f"{shard} is no tar file that can be read: {error}") from error
    return members
