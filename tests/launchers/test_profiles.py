"""The profile's files, and what can be told of a profile that is there."""

import pytest
from traitlets.config.loader import PyFileConfigLoader

from ipp_griffin.common.errors import SettingError
from ipp_griffin.launchers.profiles import is_blank, names_griffin, profile_files, profile_folder, profile_path


def test_the_settings_that_say_where_are_written_and_the_others_stay_as_they_are_shipped(tmp_path):
    for name, text in profile_files(cloud="mine", region="", container="other").items():
        (tmp_path / name).write_text(text)
    loaded = PyFileConfigLoader("ipcluster_config.py", path=str(tmp_path)).load_config()
    assert loaded.GriffinCloud == {"cloud": "mine", "container": "other"}
    assert len((tmp_path / "ipcluster_config.py").read_text().splitlines()) == len(
        profile_files()["ipcluster_config.py"].splitlines()
    )


@pytest.mark.parametrize(
    ("texts", "blank", "griffin"),
    [
        ({}, True, False),
        ({"ipcluster_config.py": "# c.Cluster.n = 3\nc = get_config()  #noqa\n"}, True, False),
        ({"ipcluster_config.py": "c.Cluster.n = 3\n"}, False, False),
        ({"ipcontroller_config.py": "c.HubFactory.x = 3\n"}, False, False),
        ({"ipcluster_config.py": "c.Cluster.engine_launcher_class = 'griffin'\n"}, False, True),
        ({"ipcluster_config.py": "# c.Cluster.engine_launcher_class = 'griffin'\n"}, True, False),
        ({"ipcluster_config.py": "c = get_config(); c.Cluster.n = 3\n"}, False, False),
        ({"ipcluster_config.py": "# -*- coding: latin-1 -*-\n# \udce9\n"}, True, False),
        (profile_files(), False, True),
    ],
)
def test_what_a_profile_does_is_told_by_its_statements(tmp_path, texts, blank, griffin):
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text.encode(errors="surrogateescape"))
    assert (is_blank(tmp_path), names_griffin(tmp_path)) == (blank, griffin)


def test_asking_where_a_profile_is_makes_none(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    assert profile_path("mine") == tmp_path / "profile_mine"
    assert list(tmp_path.glob("profile_*")) == []
    assert profile_folder("mine") == profile_path("mine")
    assert profile_path("mine").is_dir()
    with pytest.raises(SettingError, match="is not the name of a profile"):
        profile_path("../mine")
