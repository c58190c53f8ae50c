"""Reads and writes the numbered files of a score set. A file's name holds the digest of its bytes.

So a damaged file is recognised, and after a kill each file is there whole or it is missing.
"""

import re
from pathlib import Path

from bench.files import read_if_there, rename, write_whole
from bench.store.parts import digest


class PartFiles:
    """The files `STEM-NUMBER-DIGEST.parquet` of a folder."""

    def __init__(self, folder: Path, stem: str) -> None:
        """Does not access the disk."""
        self.folder, self.stem = folder, stem
        self._name = re.compile(rf"{stem}-(\d{{4,}})-([0-9a-f]{{16}})\.parquet")

    def paths(self) -> list[Path]:
        """All files, damaged ones too."""
        return sorted(path for path in self.folder.glob(f"{self.stem}-*") if self._name.fullmatch(path.name))

    def write(self, index: int, data: bytes) -> None:
        """Stores the file of a part, and removes an earlier file of this part."""
        path = self.folder / f"{self.stem}-{index:04d}-{digest(data)[:16]}.parquet"
        write_whole(path, data)
        for other in self.paths():
            if self._found(other)[0] == index and other != path:
                other.unlink(missing_ok=True)

    def verified(self, path: Path) -> bytes | None:
        """A file's bytes if their digest is the one in the file name, else None."""
        data = read_if_there(path)
        return data if data is not None and self._found(path)[1] == digest(data)[:16] else None

    def sound(self, n_parts: int) -> list[Path | None]:
        """The file of each part, None for a part without a valid file."""
        sound: dict[int, list[Path]] = {}
        for path in self.paths():
            if self.verified(path) is not None:
                sound.setdefault(self._found(path)[0], []).append(path)
        # Two valid files of one part contradict each other, so neither is used.
        one = {index: paths[0] for index, paths in sound.items() if len(paths) == 1}
        return [one.get(index) for index in range(n_parts)]

    def set_damaged_aside(self) -> None:
        """Renames damaged files."""
        for path in self.paths():
            if self.verified(path) is None:
                rename(path, path.with_name(f"{path.name}.damaged"))

    def _found(self, path: Path) -> tuple[int, str]:
        """The number and the digest in the name of a file."""
        if (found := self._name.fullmatch(path.name)) is None:
            raise ValueError(f"{path}: is no part's file")
        return int(found[1]), found[2]
