"""The place of a server, and what is named after it."""

import pytest

from ipp_griffin.model.names import Place, place_of, place_of_engine, server_name, server_tags, uid_of

UID, SET = "0123456789ab", "cafe0001"
FIRST, THIRD = Place(SET, 3), Place(SET, 3, 2)


def test_people_see_the_incarnation_of_a_replacement_only():
    assert [str(FIRST), str(THIRD)] == [f"{SET}/3", f"{SET}/3.2"]


def test_places_are_in_the_order_of_their_numbers_not_of_their_digits():
    places = [Place("b", 0), Place("a", 10), Place("a", 2, 10), Place("a", 2, 2), Place("a", 2)]
    assert sorted(places) == places[::-1]


def test_a_server_and_its_replacement_share_no_name_no_object_and_no_engine():
    assert [server_name("u", place) for place in (FIRST, THIRD)] == [f"griffin-u-{SET}-3", f"griffin-u-{SET}-3-2"]
    assert [FIRST.prefix, THIRD.prefix] == [f"{SET}/3.0/", f"{SET}/3.2/"]
    assert [FIRST.uuid_prefix, THIRD.uuid_prefix] == [f"{SET}-3-0", f"{SET}-3-2"]


def test_tags_are_one_literal_and_tell_uid_and_place_again():
    tags = server_tags(UID, THIRD)
    assert tags == (
        "ipp-griffin",
        "griffin-uid=0123456789ab",
        "griffin-set=cafe0001",
        "griffin-slot=3",
        "griffin-incarnation=2",
    )
    assert (uid_of(("other", *tags)), place_of(("other", *tags))) == (UID, THIRD)


@pytest.mark.parametrize(
    "tags", [(), ("ipp-griffin",), ("griffin-uid=a", "griffin-set=b", "griffin-slot=c"), ("griffin-",)]
)
def test_the_tags_of_other_servers_tell_neither_uid_nor_place(tags):
    assert (uid_of(tags), place_of(tags)) == ("", None)


def test_a_tag_that_somebody_made_up_tells_no_place():
    """It would reach terminals, and names of containers."""
    assert place_of(server_tags("0123\x1b[2J89ab", FIRST)) is None


def test_every_tag_and_name_is_within_novas_limits():
    """Tags: 60 characters, no comma, no slash. Names: 255, and a host name label: 63."""
    largest = Place(SET, 99_999, 12)
    assert all(len(tag) <= 60 and not set(",/") & set(tag) for tag in server_tags(UID, largest))
    assert len(server_name(UID, largest)) <= 63


@pytest.mark.parametrize(
    ("uuid", "found"), [(f"{THIRD.uuid_prefix}-1-4", (THIRD, 1)), (THIRD.uuid_prefix, None), ("6a1e-somebody", None)]
)
def test_an_engines_uuid_tells_its_server_and_its_index_there(uuid, found):
    assert place_of_engine(uuid) == found
