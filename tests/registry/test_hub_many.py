"""Many fetches at once, and fetches that are killed."""

from machines import Site
from many_fetches import fetch_at_once, kill_fetches


def test_fetchers_at_once(site: Site) -> None:
    fetch_at_once(4, site)


def test_fetchers_at_once_into_stores_of_their_own(site: Site) -> None:
    """They share the client's cache only: one download serves all that wait for it."""
    homes = [site.machine.home / f"home-{number}" for number in range(3)]
    for process in [site.machine.start(*site.wanted, GDN_AOT_HOME=str(home)) for home in homes]:
        process.end()
    for home in homes:
        assert len(list((home / "store/artifacts").iterdir())) == 1


def test_killed_at_any_moment(site: Site) -> None:
    kill_fetches(12, site)
