"""Firmware as a node carries it, and flash images made of it.

A firmware folder holds boot.py and main.py (copied as they are), other modules at the top (compiled), and the
packages node and sensors. Where there is a `node`, it, `sensors` and what they need of the protocol package
become slot a: /slot_a/<package>/*.mpy, and /slot_a/manifest.json written last. What is compiled for a node is
squeezed before (simpang.squeeze). A bridge has no slots: see `build_bridge`.
Builds are kept by the hash of their sources.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from simpang.rig import image as images
from simpang.rig.errors import RigError
from simpang.rig.interpreter import find_tool
from simpang.squeeze import SqueezeError, identifiers, squeeze

FLASH_BLOCKS = 256
BUILDS_KEPT = 32
_FORMAT = "2"
_SLOT_PACKAGES = ("node", "sensors")
_AS_SOURCE = ("boot.py", "main.py")
_PACKAGE = Path(__file__).resolve().parents[1]
_FAKES = Path(__file__).with_name("fakes")
_ON_THE_BOARD = ("_rig.py", "esp32.py", "espnow.py", "machine.py", "network.py", "rigboot.py", "select.py")
_BRIDGE_PROTOCOL = ("__init__", "cobs", "envelope", "errors")
_COMPILER_OPTIONS = ("-march=xtensawin", "-msmall-int-bits=31", "-O2")
_SQUEEZER = _PACKAGE / "squeeze"


@dataclass(frozen=True, slots=True)
class Build:
    """Compiled firmware: `folder` is laid out like the node's root, `image` a flash image that holds it.

    `version` is what the manifest of slot a says. Beside `folder` lies names.json, which says what squeezing
    made of each identifier: {"slot": {old: new}, "root": {old: new}}.
    """

    folder: Path
    image: Path
    version: str


def cache_folder() -> Path:
    """Where builds are kept: .cache/rig of a checkout, which `make clean` removes; of an installation
    $XDG_CACHE_HOME/simpang/rig, or ~/.cache/simpang/rig.
    """
    checkout = _PACKAGE.parents[1]
    if (checkout / "pyproject.toml").is_file() and os.access(checkout, os.W_OK):
        return checkout / ".cache" / "rig"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "simpang" / "rig"


def own_firmware() -> Path:
    """The firmware of this installation. Raises RigError where it is missing."""
    # In a wheel the firmware lies inside the package, in a checkout beside `tools`.
    for folder in (_PACKAGE / "_firmware", _PACKAGE.parents[1] / "firmware"):
        if (folder / "main.py").is_file():
            return folder
    raise RigError("the firmware of Simpang is missing. Install again, or name a firmware folder.")


def build(
    firmware: Path | None = None,
    *,
    blocks: int = FLASH_BLOCKS,
    version: str | None = None,
    cache: Path | None = None,
) -> Build:
    """Compile a firmware folder and make its base image, or take both from the cache.

    `blocks` is the size of the flash in blocks of 4096 bytes; `version` defaults to one made of the sources'
    hash. Raises RigError with the compiler's words where a file does not compile.
    """
    sources = _sources(own_firmware() if firmware is None else firmware)
    return _build(sources, blocks, version, cache, squeezed=True)


def build_bridge(
    *, blocks: int = FLASH_BLOCKS, version: str | None = None, cache: Path | None = None
) -> Build:
    """As `build`, the firmware of a bridge: boot.py, main.py, the package bridge and what it needs of the
    protocol.
    """
    folder = own_firmware()
    sources = {"/boot.py": folder / "boot.py", "/main.py": folder / "bridge" / "main.py"}
    for path in sorted((folder / "bridge").glob("*.py")):
        if path.name != "main.py":
            sources[f"/bridge/{path.name}"] = path
    for name in _BRIDGE_PROTOCOL:
        sources[f"/simpang_protocol/{name}.py"] = _protocol() / f"{name}.py"
    return _build(sources, blocks, version, cache)


def _build(
    sources: Mapping[str, Path],
    blocks: int,
    version: str | None,
    cache: Path | None,
    squeezed: bool = False,
) -> Build:
    digest = _digest(sources)
    version = f"0.0.0+{digest[:8]}" if version is None else version
    name = f"firmware-{digest[:16]}-{blocks}-{hashlib.sha256(version.encode()).hexdigest()[:8]}"

    def fill(folder: Path) -> None:
        root = folder / "root"
        taken = _squeeze(sources, folder) if squeezed else sources
        files = _compile_all(taken, root, sources)
        shutil.rmtree(folder / "squeezed", ignore_errors=True)
        slot = {path: target for path, target in files.items() if path.startswith("/slot_a/")}
        if slot:
            manifest = root / "slot_a" / "manifest.json"
            manifest.write_bytes(manifest_of(slot, version))
            files["/slot_a/manifest.json"] = manifest
        images.format_image(folder / "base.img", blocks)
        images.copy_into(folder / "base.img", files)

    folder = cached(name, fill, cache)
    return Build(folder / "root", folder / "base.img", version)


def manifest_of(files: Mapping[str, Path], version: str) -> bytes:
    """Manifest of a slot: {"v":1,"version":…,"files":{path in the slot: [size, SHA-256 in hex]}}.

    Keys of `files` are paths on the node, "/slot_x/…".
    """
    entries = {}
    for path, source in sorted(files.items()):
        data = source.read_bytes()
        entries[path.split("/", 2)[2]] = [len(data), hashlib.sha256(data).hexdigest()]
    return json.dumps({"v": 1, "version": version, "files": entries}, separators=(",", ":")).encode()


def fakes(cache: Path | None = None) -> Path:
    """Folder with the compiled `machine`, `esp32` and start-up code of the virtual board."""
    sources = {f"/{name}": _FAKES / name for name in _ON_THE_BOARD}

    def fill(folder: Path) -> None:
        _compile_all(sources, folder)

    return cached(f"fakes-{_digest(sources)[:16]}", fill, cache)


def make_image(
    target: Path,
    base: Build,
    config: Mapping[str, Any] | None = None,
    key: Mapping[str, Any] | None = None,
    files: Mapping[str, bytes] | None = None,
) -> None:
    """Write the flash image of one node: the firmware, /config.json, /key.json and what else `files` brings.
    """
    extra = dict(files or {})
    for path, content in (("/config.json", config), ("/key.json", key)):
        if content is not None:
            extra[path] = json.dumps(content, separators=(",", ":")).encode()
    fresh = target.with_name(target.name + ".new")
    shutil.copyfile(base.image, fresh)
    if extra:
        images.write_files(fresh, extra)
    fresh.replace(target)


def _sources(firmware: Path) -> dict[str, Path]:
    """Path on the node without its final ending -> source, all of a firmware folder."""
    if not (firmware / "main.py").is_file():
        raise RigError(f"{firmware} is no firmware folder: main.py is missing. Name a folder that has one.")
    found = {f"/{path.name}": path for path in sorted(firmware.glob("*.py"))}
    if (firmware / "node").is_dir():
        folders = {name: firmware / name for name in _SLOT_PACKAGES}
        folders["simpang_protocol"] = _protocol()
        for name, folder in folders.items():
            for path in sorted(folder.rglob("*.py")):
                found[f"/slot_a/{name}/{path.relative_to(folder).as_posix()}"] = path
    return found


def _squeeze(sources: Mapping[str, Path], folder: Path) -> dict[str, Path]:
    """Squeeze what will be compiled, into folder/squeezed, and write folder/names.json.

    The files of the root and those of the slot are two programs: the root stays as it is when a new slot
    comes, so every name that it knows or shows keeps its spelling. Raises RigError.
    """
    texts = {path: source.read_text(encoding="utf-8") for path, source in sources.items()}
    root = {path: text for path, text in texts.items() if path.count("/") == 1}
    slot = {path: text for path, text in texts.items() if path not in root}
    compiled = {path: text for path, text in root.items() if path.lstrip("/") not in _AS_SOURCE}
    done = {path: sources[path] for path in root if path not in compiled}
    names = {}
    try:
        outside = identifiers(root.values())
        for part, program, entries in (("root", compiled, None), ("slot", slot, ("node.", "sensors."))):
            modules = {_module_name(path): path for path in program}
            result = squeeze(
                {name: program[path] for name, path in modules.items()},
                packages=[name for name, path in modules.items() if path.endswith("/__init__.py")],
                kept=outside if part == "slot" else (),
                entries=entries,
            )
            names[part] = result.names
            for name, text in result.sources.items():
                target = folder / "squeezed" / modules[name].lstrip("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text, encoding="utf-8")
                done[modules[name]] = target
    except SqueezeError as error:
        file = next((sources[path] for path in sources if _module_name(path) == error.module), folder)
        raise RigError(f"{file} does not compile: {error}. Correct the file.") from error
    (folder / "names.json").write_text(json.dumps(names, indent=1, sort_keys=True), encoding="utf-8")
    return done


def _module_name(path: str) -> str:
    """The dotted name under which a node imports a file."""
    parts = path.removeprefix("/slot_a").removesuffix(".py").strip("/").split("/")
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _protocol() -> Path:
    spec = find_spec("simpang_protocol")
    if spec is None or spec.origin is None:
        raise RigError("the package simpang_protocol is missing. Install Simpang, or add it to PYTHONPATH.")
    return Path(spec.origin).parent


def _digest(sources: Mapping[str, Path]) -> str:
    whole = hashlib.sha256(_FORMAT.encode() + " ".join(_COMPILER_OPTIONS).encode())
    for tool in ("mpy-cross", "micropython"):
        whole.update(_tool_stamp(find_tool(tool)))
    tool_files = {f"squeeze/{path.name}": path for path in _SQUEEZER.iterdir() if path.is_file()}
    for path, source in sorted({**sources, **tool_files}.items()):
        data = source.read_bytes()
        whole.update(f"{path}\0{len(data)}\0".encode() + data)
    return whole.hexdigest()


def _tool_stamp(tool: str) -> bytes:
    status = os.stat(tool)
    return f"{tool}\0{status.st_size}\0{status.st_mtime_ns}\0".encode()


def _compile_all(
    sources: Mapping[str, Path], root: Path, origins: Mapping[str, Path] | None = None
) -> dict[str, Path]:
    """Compile (or copy) sources into a folder laid out like the node; path on the node -> file, packages
    last. `origins` are the files that people know, where they are others.
    """
    made = {}
    compiling = []
    for path, source in sources.items():
        as_source = path.count("/") == 1 and source.name in _AS_SOURCE
        on_node = path if as_source else path.removesuffix(".py") + ".mpy"
        target = root / on_node.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if as_source:
            shutil.copyfile(source, target)
        else:
            compiling.append((source, target, _module_name(path), (origins or sources)[path]))
        made[on_node] = target
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for _ in pool.map(lambda job: _compile(*job), compiling):
            pass
    return made


def _compile(source: Path, target: Path, shown: str, origin: Path) -> None:
    command = [find_tool("mpy-cross"), *_COMPILER_OPTIONS, "-s", shown, "-o", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        words = " ".join((done.stderr + done.stdout).split())
        reason = words.removeprefix("Traceback (most recent call last): ")
        raise RigError(f"{origin} does not compile: {reason}. Correct the file.")


def cached(name: str, fill: Callable[[Path], None], cache: Path | None) -> Path:
    """Folder `name` of the cache (`cache_folder` unless told otherwise); where it is missing, fill() makes it
    aside and it is put there whole.
    """
    cache = cache_folder() if cache is None else cache
    folder = cache / name
    if folder.is_dir():
        os.utime(folder)
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=cache))
    try:
        fill(fresh)
        try:
            fresh.rename(folder)
        except OSError:
            # Another process was quicker with the same sources.
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    _forget_oldest(cache)
    return folder


def _forget_oldest(cache: Path) -> None:
    """Bound the cache: what was not used for longest goes first."""
    kept = []
    for folder in cache.iterdir():
        try:
            kept.append((folder.stat().st_mtime_ns, folder))
        except FileNotFoundError:
            # Another process forgot it, or put it in its place, in this moment.
            continue
    for _, folder in sorted(kept, reverse=True)[BUILDS_KEPT:]:
        shutil.rmtree(folder, ignore_errors=True)
