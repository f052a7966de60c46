"""A glob finds what a folder does: through links, and it says what it could not look into."""

from pathlib import Path

import pytest

from client.pairs import find_pairs

PHOTOS = ["cat.png", "dog.jpg", "a/cat.png", "a/b/c/cat.png", "link/d/cat.jpg", ".hidden/cat.png"]


@pytest.fixture
def find(tmp_path, monkeypatch):
    """Return the photos that a glob below photos/ finds, and what it says it could not."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    Path("elsewhere").mkdir()
    Path("photos/link").symlink_to(tmp_path / "elsewhere")
    Path("elsewhere/up").symlink_to(tmp_path / "photos")
    for folder in ("photos", "trimaps"):
        for name in PHOTOS:
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    def find_below(pattern):
        found, problems = find_pairs(f"photos/{pattern}", Path("trimaps"), {"alpha": Path("out")})
        return [str(pair.image.relative_to("photos")) for pair in found], [p for _, p in problems]

    return find_below


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.png", ["cat.png"]),
        ("[c-d]*", ["cat.png", "dog.jpg"]),
        ("*/*", ["a/cat.png"]),
        ("**/*.jpg", ["dog.jpg", "link/d/cat.jpg"]),
        ("?/**/cat.*", ["a/b/c/cat.png", "a/cat.png"]),
        ("**/b/**/*.png", ["a/b/c/cat.png"]),
        ("a*/**", ["a/b/c/cat.png", "a/cat.png"]),
        ("**", ["a/b/c/cat.png", "a/cat.png", "cat.png", "dog.jpg", "link/d/cat.jpg"]),
    ],
)
def test_patterns(find, pattern, found):
    assert find(pattern) == (found, [])


def test_closed_folders_are_told_where_a_glob_goes_into_them(find, close_folder):
    close_folder("photos/a/b")
    reason = "this folder cannot be listed (Permission denied)"
    assert find("**/*.png") == (["a/cat.png", "cat.png"], [f"photos/a/b: {reason}"])
    assert find("*/*.png") == (["a/cat.png"], [])
