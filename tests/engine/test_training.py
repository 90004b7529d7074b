"""Training in small: arrays, batches, losses, and that a tiny network learns."""

import os
from pathlib import Path

import numpy as np
import pytest

from workbench.engine.training.corpus import NEGATIVE, POSITIVE, UNKNOWN, Example, Span, read_own, weak_topics
from workbench.engine.training.prepare import IGNORED, encode_entities, prepare
from workbench.engine.training.vocabulary import SPECIAL_TOKENS, train_vocabulary
from workbench.tasks.labels import ENTITY_TAGS, ENTITY_TYPES, SENTIMENTS, TOPICS

pytestmark = pytest.mark.export

if os.environ.get("CI"):
    import torch
else:
    torch = pytest.importorskip("torch", reason="the extra export is not installed: pip install -e '.[export]'")

from workbench.engine.training.batches import Arrays, Recipe, batches, collate  # noqa: E402
from workbench.engine.training.encoder import Encoder, EncoderConfig  # noqa: E402
from workbench.engine.training.loops import fine_tune, predict, pretrain  # noqa: E402
from workbench.engine.training.losses import entity_loss  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
GOOD = "good lovely great 很好 喜欢 wonderful happy".split()  # noqa: SIM905 - reads better
BAD = "bad awful broken 很差 讨厌 terrible sad".split()  # noqa: SIM905


def examples(count=240):
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        words = GOOD if number % 2 else BAD
        text = " ".join(rng.choice(words, 6)) + " Acme"
        made.append(
            Example(
                text,
                "made",
                "train" if number < count - 40 else "test",
                sentiment=POSITIVE if number % 2 else NEGATIVE,
                two_class=True,
                topics=tuple(int(topic == ("price" if number % 2 else "bug")) for topic in TOPICS),
                entities=(Span(len(text) - 4, len(text), "brand"),),
                entity_types=("brand",),
            )
        )
    return made


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    made = examples()
    tokenizer = train_vocabulary([e.text for e in made], size=400, least_chinese=1)
    path = tmp_path_factory.mktemp("arrays") / "arrays.npz"
    prepare(made, ["a text without labels", "没有标签的文本"], tokenizer, path)
    return Arrays(path), tokenizer


def test_vocabulary_reads_both_languages_and_keeps_case():
    tokenizer = train_vocabulary(["Acme makes acme things 屏幕 很好 😀"] * 20, size=400, least_chinese=1)
    assert [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS] == [0, 1, 2, 3, 4]
    assert tokenizer.encode("屏幕 Acme 😀").tokens == ["[CLS]", "屏", "幕", "Acme", "😀", "[SEP]"]


def test_entities_become_tags_by_offsets():
    spans = [Span(4, 14, "brand"), Span(15, 17, "model")]
    offsets = [(0, 0), (0, 3), (4, 8), (8, 14), (15, 17), (17, 18), (0, 0)]
    tags = encode_entities(offsets, spans)
    names = [ENTITY_TAGS[tag] if tag != IGNORED else None for tag in tags]
    assert names == [None, "O", "B-brand", "I-brand", "B-model", "O", None]


def test_batches_hold_every_text_once_an_epoch_and_keep_the_budget(prepared):
    arrays, _ = prepared
    chosen, recipe = arrays.where(split="train"), Recipe(steps=1, token_budget=256)
    stream, seen = batches(arrays, chosen, recipe), []
    while len(seen) < len(chosen):
        batch = next(stream)
        assert len(batch) * arrays.lengths[batch].max() <= recipe.token_budget
        seen += list(batch)
    assert sorted(seen) == sorted(chosen)


def test_padding_is_masked(prepared):
    arrays, _ = prepared
    order = np.array([int(arrays.lengths.argmin()), int(arrays.lengths.argmax())])
    batch = collate(arrays, order, 64, torch.device("cpu"))
    assert batch.ids.shape[1] % 16 == 0
    assert ((batch.bias[:, 0, 0] == 0).sum(1).numpy() == arrays.lengths[order]).all()
    assert (batch.ids[batch.bias[:, 0, 0] != 0] == 0).all()


def test_what_a_set_does_not_annotate_may_hide_behind_o():
    """A token tagged O costs nothing when the model says a type the set does not know."""
    logits = torch.full((1, 1, len(ENTITY_TAGS)), -20.0)
    logits[0, 0, ENTITY_TAGS.index("B-company")] = 20.0
    tags = torch.zeros((1, 1), dtype=torch.long)
    knows_brand = torch.tensor([1 << ENTITY_TYPES.index("brand")])
    knows_company = torch.tensor([1 << ENTITY_TYPES.index("company")])
    assert float(entity_loss(logits, tags, knows_brand)) == pytest.approx(0.0, abs=1e-4)
    assert float(entity_loss(logits, tags, knows_company)) > 10


def test_a_tiny_network_learns(prepared):
    arrays, tokenizer = prepared
    torch.manual_seed(0)
    model = Encoder(EncoderConfig(tokenizer.get_vocab_size(), width=64, layers=1, inner=128, positions=64))
    train, test = arrays.where(split="train", source="made"), arrays.where(split="test")
    losses = pretrain(model, arrays, train, Recipe(steps=30, token_budget=2048, learning_rate=3e-3), log_every=29)
    assert losses[-1] < losses[0]
    recipe = Recipe(steps=60, token_budget=2048, learning_rate=3e-3, average=0.9)
    fine_tune(model, arrays, train, recipe, weights={})
    read = predict(model, arrays, test)
    assert (read["sentiment"].argmax(1) == arrays.sentiment[test]).mean() >= 0.95
    assert ((read["topics"] > 0) == (arrays.topics[test] == 1)).mean() >= 0.95
    last = [int(row[-2].argmax()) for row in read["entities"]]
    assert np.mean([ENTITY_TAGS[tag].endswith("-brand") for tag in last]) >= 0.9


def test_export_form_agrees_with_the_training_form(prepared):
    _, tokenizer = prepared
    torch.manual_seed(0)
    model = Encoder(EncoderConfig(tokenizer.get_vocab_size(), width=128, layers=2, inner=256)).eval()
    ids = torch.randint(5, tokenizer.get_vocab_size(), (3, 32))
    bias = torch.zeros(3, 1, 1, 32)
    bias[1, ..., 20:] = -1e4
    with torch.no_grad():
        fast, plain = model(ids, bias), model(ids, bias, plain=True)
        alone = model(ids[1:2, :20], bias[1:2, ..., :20])
    assert torch.allclose(fast.sentiment, plain.sentiment, atol=1e-5)
    assert torch.allclose(fast.entities, plain.entities, atol=1e-5)
    assert torch.allclose(alone.topics, plain.topics[1:2], atol=1e-5)


def test_weak_topics_leave_open_what_they_cannot_know():
    named = dict(zip(TOPICS, weak_topics("快递太慢了") or (), strict=True))
    assert named["delivery"] == 1
    assert weak_topics("不错") is None
    long = dict(zip(TOPICS, weak_topics("质量很好。" + "这件东西我用了很久。" * 10) or (), strict=True))
    assert (long["quality"], long["price"]) == (1, UNKNOWN)


def test_own_texts_are_read_with_their_labels():
    own = list(read_own(ROOT / "calibration"))
    assert {e.source for e in own} == {
        f"own_{t}_{lang}" for t in ("sentiment", "topics", "entities") for lang in ("en", "zh")
    }
    for example in own:
        assert example.sentiment is None or 0 <= example.sentiment < len(SENTIMENTS)
        for span in example.entities:
            assert example.text[span.start : span.end].strip()
