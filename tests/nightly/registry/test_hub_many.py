"""More fetches at once, and more that are killed, than after every change."""

from machines import Site, fetch_at_once, kill_fetches


def test_fetchers_at_once(site: Site) -> None:
    fetch_at_once(16, site)


def test_killed_at_any_moment(site: Site) -> None:
    kill_fetches(50, site)
