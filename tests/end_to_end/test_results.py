"""Results: engines save them without a credential, and they are there when the cluster is gone."""

import ipyparallel as ipp
from traitlets.config import Config

from ipp_griffin import Results
from ipp_griffin.api.results import NAME

from .commands import container, griffin


def save(upload, n):
    """Runs on an engine, which has no ipp_griffin of this process and no credential."""
    import pathlib
    import tempfile

    path = pathlib.Path(tempfile.mkdtemp()) / f"part-{n}.bin"
    path.write_bytes(bytes([n]) * 3_000_000)
    return upload(path), upload(b"small", f"small/{n}")


save.__module__ = "__main__"  # as of a notebook or a script: engines have no `tests`


def test_engines_save_what_outlives_the_cluster(shell, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(shell.ipython))
    monkeypatch.chdir(shell.folder)
    config = Config({"GriffinEngineSetLauncher": {"engines_per_server": 2}})
    with ipp.Cluster(profile="griffin", n=2, config=config) as rc:
        results, prefix = Results(rc.cluster), rc.cluster.controller.container
        saved = rc.load_balanced_view().map_sync(save, [results.uploader()] * 3, range(3))
    assert saved == [(f"{results.uid}/part-{n}.bin", f"{results.uid}/small/{n}") for n in range(3)]
    assert [name.removeprefix("container ") for name in shell.cloud.left_over()] == [f"{prefix}-{NAME}"]
    griffin(shell, "get", "part-2.bin", container(shell))
    assert (shell.folder / "part-2.bin").read_bytes() == b"\2" * 3_000_000
    later = Results(results.uid, container=prefix)
    assert [later.read(f"small/{n}") for n in range(3)] == [b"small"] * 3
    for one in later.all():
        later.delete(one.name)
    later._store.remove_if_empty(NAME)
