"""`arguments`: what a user gives of ipcontroller's arguments, and what may not be given."""

import pytest

from ipp_griffin.common.errors import SettingError
from ipp_griffin.launchers.arguments import check_args, value_of


@pytest.mark.parametrize(
    "args",
    [["--ip=1.2.3.4"], ["--ip", "1.2.3.4"], ["--IPController.ip=1.2.3.4"], ["-ip", "1.2.3.4"], ["-ip=1.2.3.4"]],
)
def test_an_option_is_seen_however_it_is_spelled(args):
    assert value_of(["--nodb", *args, "--debug"], "ip", "IPController.ip") == "1.2.3.4"


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
    assert value_of(args, "ip", "IPController.ip") == value


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["--IPController.enable_curve=False"], "CurveZMQ is always on"),
        (["--reuse"], "can't be reused"),
        (["--IPController.restore_engines=True"], "can't be reused"),
        (["--Session.key=abc"], "remove Session.key"),
        (["--IPController.curve_secretkey", "abc"], "remove IPController.curve_secretkey"),
    ],
)
def test_what_protects_the_cluster_can_not_be_switched_off(args, why):
    with pytest.raises(SettingError, match=why):
        check_args(["--nodb", *args])


def test_other_arguments_are_the_users_own():
    check_args(["--nodb", "--HeartMonitor.period=5000"])
