"""The gate: extraction on labelled pages may not fall under ``tests/evaluate/floors.json``.

WORKBENCH_DATA=../shared/data python -m pytest -m data tests/extract/test_quality_floors.py
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.evaluate import extraction_products, extraction_text, floors
from tests.evaluate.__main__ import main


@pytest.fixture
def data() -> Path:
    folder = os.environ.get("WORKBENCH_DATA")
    if not folder:
        pytest.skip("needs labelled pages: set WORKBENCH_DATA to the folder that has web/wcxb_dev.tar.xz")
    return Path(folder).resolve(strict=True)


@pytest.mark.data
@pytest.mark.slow
def test_main_text_on_every_fifth_page(data: Path) -> None:
    results = extraction_text.measure(data, sample=floors.SAMPLE)
    assert [result.error for result in results if result.error] == []
    measured = floors.Floor(data / extraction_text.ARCHIVE, extraction_text.summarize(results))
    assert floors.find_falls("text-sample", measured) == []


@pytest.mark.data
@pytest.mark.slow
def test_product_pages(data: Path) -> None:
    measured = floors.Floor(data / extraction_products.PAGES, extraction_products.scores(data))
    assert floors.find_falls("products", measured) == []


class TestFloors:
    def test_a_fall_is_found(self, tmp_path: Path) -> None:
        archive, file = tmp_path / "data", tmp_path / "floors.json"
        archive.write_bytes(b"pages")
        assert floors.update({"text": floors.Floor(archive, {"all": 0.8, "exceptions": 0.0})}, file=file) == []
        assert json.loads(file.read_text())["text"]["scores"] == {"all": 0.8}
        assert floors.find_falls("text", floors.Floor(archive, {"all": 0.797}), file=file) == []
        (fall,) = floors.find_falls("text", floors.Floor(archive, {"all": 0.79}), file=file)
        assert "0.7900" in fall
        (missing,) = floors.find_falls("text", floors.Floor(archive, {}), file=file)
        assert "all" in missing

    def test_other_data_has_no_floors(self, tmp_path: Path) -> None:
        archive, file = tmp_path / "data", tmp_path / "floors.json"
        archive.write_bytes(b"pages")
        floors.update({"text": floors.Floor(archive, {"all": 0.8})}, file=file)
        archive.write_bytes(b"other pages")
        (message,) = floors.find_falls("text", floors.Floor(archive, {"all": 0.9}), file=file)
        assert "other data" in message

    def test_a_floor_is_lowered_only_when_told(self, tmp_path: Path) -> None:
        archive, file = tmp_path / "data", tmp_path / "floors.json"
        archive.write_bytes(b"pages")
        floors.update({"text": floors.Floor(archive, {"all": 0.8})}, file=file)
        before = file.read_text()
        assert floors.update({"text": floors.Floor(archive, {"all": 0.7})}, file=file) == ["text: all 0.8 to 0.7"]
        assert file.read_text() == before
        assert floors.update({"text": floors.Floor(archive, {"all": 0.7})}, allow_lower=True, file=file) == []
        assert json.loads(file.read_text())["text"]["scores"] == {"all": 0.7}


def test_a_missing_folder_is_said_plainly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("extraction", "fit-text"):
        assert main([command, "--data", str(tmp_path)]) == 2
        message = capsys.readouterr().err
        assert "is missing" in message
        assert "--data FOLDER" in message
