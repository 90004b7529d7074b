import pytest

from tests.runtime.tiny_model import TOML, TOPIC_LABELS
from workbench.errors import ModelError
from workbench.tasks.spec import load_spec


@pytest.fixture
def folder(tmp_path):
    for name in ("model.onnx", "tokenizer.json"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "model.toml").write_text(TOML)
    return tmp_path


def test_a_good_file_is_read(folder):
    spec = load_spec(folder)
    assert (spec.name, spec.version, spec.title, spec.max_tokens, spec.pad_id) == ("tiny", "1", "tiny 1", 64, 0)
    assert list(spec.outputs) == ["sentiment", "topics", "entities"]
    sentiment = spec.outputs["sentiment"]
    assert sentiment.temperature_of("zh") == 2.0
    assert sentiment.temperature_of("en") == sentiment.temperature_of(None) == 1.0
    assert spec.outputs["topics"].labels == tuple(TOPIC_LABELS)
    assert spec.outputs["topics"].thresholds == (0.5,) * 8
    assert spec.card["name"] == "tiny"


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "model.toml"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ModelError, match=rf"has no {name}.*workspace\.toml"):
        load_spec(folder)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"nowhere is not a folder.*git checkout"):
        load_spec(tmp_path / "nowhere")


def test_broken_toml(folder):
    (folder / "model.toml").write_text("name = ")
    with pytest.raises(ModelError, match="is not valid TOML"):
        load_spec(folder)
    (folder / "model.toml").write_bytes(b'name = "\xff"')
    with pytest.raises(ModelError, match="is not UTF-8"):
        load_spec(folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "tiny"', "", "name: must be a text"),
        ("max_tokens = 64", "max_tokens = 2", "max_tokens: must be a whole number of at least 8, got 2"),
        ("pad_id = 0", "pad_id = true", "pad_id: must be a whole number"),
        ("[outputs.topics]", "[outputs.mood]", "outputs.mood: no such task; tasks: sentiment, topics, entities"),
        ('kind = "classes"', 'kind = "tags"', "outputs.sentiment.kind: must be classes, got 'tags'"),
        ('"neutral", ', '"so so", ', "'so so' is none of negative, neutral, positive; map it with labels"),
        ('["negative", "neutral", "positive"]', '["negative"]', "tells nothing apart"),
        ("temperature = 1.0", "temperature = 0", "a temperature must be a number above 0, got 0"),
        ("zh = 2.0", 'zh = "hot"', "outputs.sentiment, zh: a temperature must be"),
        ('kind = "labels"', 'kind = "labels"\nthresholds = [0.5]', "1 thresholds for 8 labels"),
        ('kind = "labels"', 'kind = "labels"\nthresholds = [2]', "numbers from 0 to 1"),
        ('kind = "labels"', 'kind = "labels"\nlimit = 3', "outputs.topics.limit: unknown key"),
        ("'O', ", "", "O, the tag of words outside, is missing"),
        ("'B-brand'", "'brand'", "'brand' is no BIO tag"),
    ],
)
def test_each_mistake_has_a_message(folder, old, new, message):
    assert old in TOML
    (folder / "model.toml").write_text(TOML.replace(old, new, 1))
    with pytest.raises(ModelError) as caught:
        load_spec(folder)
    assert message in str(caught.value)
    assert str(caught.value).endswith("Mend it, or export the model again.")


def test_all_mistakes_are_shown_at_once(folder):
    (folder / "model.toml").write_text(TOML.replace("max_tokens = 64", "").replace('version = "1"', "version = 1"))
    with pytest.raises(ModelError) as caught:
        load_spec(folder)
    assert "version: must be a text" in str(caught.value)
    assert "max_tokens: must be" in str(caught.value)


def test_five_stars_are_three_classes(folder):
    stars = '["negative", "negative", "neutral", "positive", "positive"]'
    (folder / "model.toml").write_text(TOML.replace('["negative", "neutral", "positive"]', stars))
    assert load_spec(folder).outputs["sentiment"].labels.count("negative") == 2
