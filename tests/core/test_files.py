import pytest

from workbench.files import atomic_write, write_text


def test_nothing_is_left_when_writing_fails(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "before")

    def fail():
        with atomic_write(path) as stream:
            stream.write(b"half")
            raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "before"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]
