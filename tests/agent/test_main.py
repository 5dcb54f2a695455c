"""The ways to run the agent."""

import os

from ipp_griffin.agent import main


def test_on_another_instance_the_unit_does_nothing(tmp_path, monkeypatch, capsys):
    """A snapshot of a server with engines boots as a plain server."""
    (tmp_path / "instance-id").write_text("i-1")
    (tmp_path / "now").write_text("i-2")
    lines = []
    monkeypatch.setattr(main, "STATE", str(tmp_path))
    monkeypatch.setattr(main, "INSTANCE_ID", str(tmp_path / "now"))
    monkeypatch.setattr(main, "__file__", str(tmp_path / "agent.py"))
    monkeypatch.setattr(main, "say", lines.append)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", "/usr/bin")  # which it changes
    assert main.main() == 0
    assert lines == ["this agent was made for another server; nothing to do"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["instance-id", "now"]
