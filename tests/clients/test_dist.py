"""What `make dist` packs: the same bytes twice, a binary that runs where it is unpacked, and the licence of each package that is in it; and what is backed up, restored."""

import hashlib
import json
import os
import sqlite3
import subprocess
import tarfile
from pathlib import Path

from rig import AT_ONCE, FLASHLANE, ROOT, SERVER, Flashlane, fetch

MODEL = "flashlane-demo"


def pack(folder: Path) -> Path:
    command = [ROOT / "deploy/dist", "--bin", FLASHLANE, "--out", folder]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=120, env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"})
    return next(folder.glob("*.tar.gz"))


def run(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout


def test_it_is_packed_with_all_that_it_needs(tmp_path):
    packed = pack(tmp_path / "one")
    digest, name = packed.with_name(packed.name + ".sha256").read_text().split()
    assert (digest, name) == (hashlib.sha256(packed.read_bytes()).hexdigest(), packed.name)
    assert hashlib.sha256(pack(tmp_path / "two").read_bytes()).hexdigest() == digest
    with tarfile.open(packed) as archive:
        names = archive.getnames()
        assert names == sorted(names)
        assert {(member.uid, member.gid, member.mtime) for member in archive.getmembers()} == {(0, 0, 1700000000)}
        archive.extractall(tmp_path, filter="data")
    folder = tmp_path / packed.name.removesuffix(".tar.gz")
    assert run(folder / "flashlane", "--version").startswith("flashlane ")
    run(folder / "flashlane", "serve", "--config", folder / "deploy/flashlane.toml", "--check")
    assert (folder / "docs/OPERATIONS.md").exists() and (folder / "deploy/flashlane.service").exists()
    licences = (folder / "LICENSES.txt").read_text()
    tree = run("cargo", "tree", "--locked", "--offline", "-p", "flashlane-gateway", "--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}")
    linked = {" ".join(line.split()[:2]).replace(" v", " ") for line in tree.splitlines() if "(/" not in line}
    listed = {line.split(":")[0] for line in licences.split("=" * 100)[0].splitlines()}
    assert len(linked) > 100
    assert linked <= listed


def test_a_backup_of_a_store_at_work_is_restored(tmp_path):
    def config(folder: str) -> str:
        return f'{SERVER}{AT_ONCE}\n[store]\nfolder = "{tmp_path}/{folder}"\n\n[[models]]\nname = "{MODEL}"\nroute = "latency-only"\n'

    with Flashlane(config("data")) as gateway:
        body = {"model": MODEL, "input": "remember this"}
        kept = json.loads(fetch(f"{gateway.base_url}/responses", body))
        # As `sqlite3 store.sqlite ".backup copy.sqlite"` does it.
        with sqlite3.connect(f"file:{tmp_path}/data/store.sqlite?mode=ro", uri=True) as store, sqlite3.connect(tmp_path / "copy.sqlite") as copy:
            store.backup(copy)
        later = json.loads(fetch(f"{gateway.base_url}/responses", body))
    (tmp_path / "restored").mkdir(mode=0o700)
    (tmp_path / "copy.sqlite").rename(tmp_path / "restored/store.sqlite")
    with Flashlane(config("restored")) as gateway:
        assert json.loads(fetch(f"{gateway.base_url}/responses/{kept['id']}"))["output"] == kept["output"]
        follow_up = {"model": MODEL, "input": "and this", "previous_response_id": kept["id"]}
        assert json.loads(fetch(f"{gateway.base_url}/responses", follow_up))["status"] == "completed"
        try:
            fetch(f"{gateway.base_url}/responses/{later['id']}")
            raise AssertionError("it was made after the backup")
        except OSError as error:
            assert "404" in str(error)
