"""The page on compatibility is what the code says."""

from server.compatibility import lines


def test_the_page_is_as_the_table_of_terms_says(request):
    page = request.config.rootpath / "docs" / "compatibility.md"
    assert page.read_text(encoding="utf-8").splitlines() == list(lines()), "run `make docs`"
