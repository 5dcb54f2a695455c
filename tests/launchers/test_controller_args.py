"""`controller_args`: what a user gives of ipcontroller's arguments, and what may not be given."""

import pytest

from ipp_griffin.launchers.controller_args import check_args, given, patience
from ipp_griffin.plan import SettingError


@pytest.mark.parametrize(
    "args",
    [["--ip=1.2.3.4"], ["--ip", "1.2.3.4"], ["--IPController.ip=1.2.3.4"], ["-ip", "1.2.3.4"], ["-ip=1.2.3.4"]],
)
def test_an_option_is_seen_however_it_is_spelled(args):
    assert given(["--nodb", *args, "--debug"], "ip", "IPController.ip") == "1.2.3.4"


@pytest.mark.parametrize(
    ("args", "value"),
    [
        ([], ""),
        (["--ipx=1.2.3.4"], ""),
        (["--location=ip"], ""),
        (["ip", "1.2.3.4"], ""),  # the value of another option
        (["--ip"], " "),  # given, without a value
        (["--ip=first", "--ip=second"], "first"),
    ],
)
def test_what_is_no_such_option_is_not_taken_for_it(args, value):
    assert given(args, "ip", "IPController.ip") == value


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["--IPController.enable_curve=False"], "CurveZMQ is always on"),
        (["--reuse"], "can't be used again"),
        (["--IPController.restore_engines=True"], "can't be used again"),
        (["--Session.key=abc"], "take Session.key out"),
        (["--IPController.curve_secretkey", "abc"], "take IPController.curve_secretkey out"),
    ],
)
def test_what_protects_the_cluster_can_not_be_switched_off(args, why):
    with pytest.raises(SettingError, match=why):
        check_args(["--nodb", *args])


def test_other_arguments_are_the_users_own():
    check_args(["--nodb", "--HeartMonitor.period=5000"])


OURS = ["--IPController.registration_timeout=120"]


@pytest.mark.parametrize(
    ("name", "text", "added"),
    [
        ("ipcontroller_config.py", "c.IPController.registration_timeout = 30", []),
        ("ipcontroller_config.py", "if True:\n    c.IPController.update(registration_timeout=30)", []),
        ("ipcontroller_config.json", '{"IPController": {"registration_timeout": 30}}', []),
        ("ipcontroller_config.py", "# c.IPController.registration_timeout = 30\nc.HeartMonitor.period = 1", OURS),
        ("ipengine_config.py", "c.IPController.registration_timeout = 30", OURS),
    ],
)
def test_engines_have_longer_for_their_first_heartbeat_unless_the_profile_says_how_long(tmp_path, name, text, added):
    """A command line argument would win over the profile."""
    (tmp_path / name).write_text(text)
    assert patience(["--nodb"], str(tmp_path)) == added


def test_what_the_user_gives_as_an_argument_is_not_given_twice(tmp_path):
    assert patience(["--IPController.registration_timeout", "7"], str(tmp_path)) == []
    assert patience([], str(tmp_path)) == OURS
