"""The agent as a systemd unit."""

import sys

from ipp_griffin.agent.systemd import install, unit_text


def test_the_unit():
    assert unit_text("/usr/bin/python3", "/var/lib/ipp-griffin/agent.py").splitlines() == [
        "[Unit]",
        "Description=ipp-griffin: what this server runs of an ipyparallel cluster",
        "Wants=network-online.target",
        "After=network-online.target",
        "StartLimitIntervalSec=600",
        "StartLimitBurst=5",
        "StartLimitAction=poweroff",  # an agent that always breaks must not leave a server on for ever
        "",
        "[Service]",
        "ExecStart=/usr/bin/python3 /var/lib/ipp-griffin/agent.py",
        "Restart=on-failure",
        "RestartSec=5",
        "KillMode=control-group",
        "TimeoutStopSec=20",
        "OOMPolicy=continue",
        "TasksMax=infinity",
        "StandardOutput=journal+console",
        "StandardError=journal+console",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]


def test_a_python_path_that_systemd_would_expand_is_not_written_into_the_unit():
    text = unit_text("/opt/50%n py/bin/python", "/a.py")
    assert "%" not in text and "ExecStart=/usr/bin/env python3 /a.py\n" in text


def test_installing_writes_a_private_copy_and_a_unit_and_does_not_wait_for_it(tmp_path):
    (tmp_path / "part-001").write_text("print()")
    (tmp_path / "state").mkdir()
    commands = []
    unit = tmp_path / "ipp-griffin-agent.service"
    assert install(
        str(tmp_path / "part-001"),
        str(tmp_path / "state"),
        str(unit),
        lambda c: (commands.append(" ".join(c)), (0, ""))[1],
    )
    copy = tmp_path / "state/agent.py"
    assert copy.read_text() == "print()" and copy.stat().st_mode & 0o777 == 0o600
    assert f"ExecStart={sys.executable} {copy}" in unit.read_text() and unit.stat().st_mode & 0o777 == 0o644
    assert commands == [
        "systemctl daemon-reload",
        "systemctl enable ipp-griffin-agent.service",
        "systemctl restart --no-block ipp-griffin-agent.service",
    ]


def test_where_systemd_refuses_the_agent_is_not_installed(tmp_path, capsys):
    (tmp_path / "state").mkdir()
    assert not install("/dev/null", str(tmp_path / "state"), str(tmp_path / "u.service"), lambda c: (1, "refused"))
