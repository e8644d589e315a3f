"""What was there before the service's user was: a restored gateway, files that root has put there."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .actions import inside, known_user


@dataclass(frozen=True, slots=True)
class Handover:
    """Gives a state folder and its files to the service's user, and lets it read its configuration.

    Of the configuration's folder: gateway.toml, which stays root's, and what lies in `secrets`, where a
    restoration puts the files that it names.
    """

    state: Path
    config: Path
    user: str

    def words(self) -> str:
        return f"give what is in {self.state} to {self.user}, and let it read {self.config}"

    def content(self) -> str:
        return ""

    def done(self, root: Path) -> bool:
        return not any(self._wrong(root))

    def act(self, root: Path) -> None:
        for path, owner, group, mode in self._wrong(root):
            os.chown(path, owner, group, follow_symlinks=False)
            path.chmod(mode)

    def _wrong(self, root: Path) -> Iterator[tuple[Path, int, int, int]]:
        for path, owner, group, mode in self._wanted(root):
            found = path.lstat()
            if (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) != (owner, group, mode):
                yield path, owner, group, mode

    def _wanted(self, root: Path) -> Iterator[tuple[Path, int, int, int]]:
        """Path, user, group and mode of everything that is there."""
        # Before the user is made, anything that is there is still to be given.
        user, group = known_user(root, self.user) or (-2, -2)
        folder = inside(root, self.config.parent)
        if not folder.is_dir():
            return
        yield folder, 0, group, 0o750
        if (config := inside(root, self.config)).is_file():
            yield config, 0, group, 0o640
        for place in (folder / "secrets", inside(root, self.state)):
            for path in [place, *place.rglob("*")] if place.is_dir() else []:
                found = path.lstat()
                if stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode):
                    yield path, user, group, stat.S_IMODE(found.st_mode)
