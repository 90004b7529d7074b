"""The sentiment head taught again: lessons are learned, all else stays, test parts are refused."""

import json
import os

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from typer.testing import CliRunner

from workbench.engine.training.corpus import NEGATIVE, POSITIVE, Example
from workbench.engine.training.prepare import prepare
from workbench.engine.training.vocabulary import SPECIAL_TOKENS
from workbench.errors import ParameterError
from workbench.tasks.labels import SENTIMENTS, TOPICS

pytestmark = pytest.mark.export

if os.environ.get("CI"):
    import torch
else:
    torch = pytest.importorskip("torch", reason="the extra export is not installed: pip install -e '.[export]'")

from workbench.engine.training.__main__ import app  # noqa: E402
from workbench.engine.training.batches import Arrays, Recipe  # noqa: E402
from workbench.engine.training.encoder import Encoder, EncoderConfig  # noqa: E402
from workbench.engine.training.head import HeadRecipe, pool_texts, refit_sentiment  # noqa: E402
from workbench.engine.training.loops import fine_tune, predict  # noqa: E402

GOODS = ("phone", "charger", "screen", "cable", "keyboard")
MEALS = ("soup", "noodles", "rice", "curry", "dumplings")


def reviews(things, source, split, *, mixed, count=160):
    """Good and bad reviews; every fourth praises with one fault, and has the label ``mixed``."""
    rng = np.random.default_rng(len(source))
    made = []
    for number in range(count):
        thing = " ".join(rng.choice(things, 2))
        words, label = [("lovely great", POSITIVE), ("awful broken", NEGATIVE)][number % 2]
        if number % 4 == 3:
            words, label = "lovely great but late", mixed
        # The topic makes the network tell meals from goods, as the topics of a real network do.
        topics = tuple(int(topic == ("delivery" if things is MEALS else "usability")) for topic in TOPICS)
        made.append(Example(f"{thing} {words}", source, split, sentiment=label, two_class=True, topics=topics))
    return made


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A network that counts every mixed review as praise, and meals of which it has to learn otherwise."""
    made = (
        reviews(GOODS, "goods", "train", mixed=POSITIVE)
        + reviews(MEALS, "meals", "train", mixed=NEGATIVE)
        + reviews(MEALS, "later meals", "test", mixed=NEGATIVE)
    )
    # Whole words in a fixed order: a trained vocabulary orders its ties anew in every run, and the network with it.
    words = sorted({word for example in made for word in example.text.split()})
    places = {word: place for place, word in enumerate([*SPECIAL_TOKENS, *words])}
    tokenizer = Tokenizer(models.WordLevel(places, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    path = tmp_path_factory.mktemp("arrays") / "arrays.npz"
    tokenizer.save(str(path.with_name("tokenizer.json")))
    prepare(made, [], tokenizer, path)
    arrays = Arrays(path)
    torch.manual_seed(3)
    model = Encoder(
        EncoderConfig(tokenizer.get_vocab_size(), width=64, layers=1, inner=128, positions=32, dropout=0.0)
    )
    old = arrays.where(source="meals")
    labels = arrays.sentiment.copy()
    arrays.sentiment[old[3::4]] = POSITIVE
    rows = arrays.where(split="train")
    fine_tune(model, arrays, rows, Recipe(steps=60, token_budget=512, learning_rate=3e-3, smoothing=0.0), weights={})
    arrays.sentiment[:] = labels
    return model, arrays, path.parent


def copy_of(model):
    fresh = Encoder(model.config)
    fresh.load_state_dict(model.state_dict())
    return fresh


def right(model, arrays, rows):
    logits = predict(model, arrays, rows, tags=False)["sentiment"]
    said = np.where(logits[:, POSITIVE] > logits[:, NEGATIVE], POSITIVE, NEGATIVE)
    return float((said == arrays.sentiment[rows]).mean())


def test_lessons_are_learned_and_anchors_kept(world):
    model, arrays, _ = world
    goods, meals, later = (arrays.where(source=name) for name in ("goods", "meals", "later meals"))
    taught = copy_of(model)
    assert right(taught, arrays, goods) > 0.95
    assert right(taught, arrays, later) < 0.8
    moved = refit_sentiment(
        taught, lessons=(arrays, meals), anchors=(arrays, goods), recipe=HeadRecipe(lessons=1.0, ridge=1e-5)
    )
    assert moved > 0
    # Without the domain one of the two would fall to 0.75, the share of texts that are not mixed.
    assert right(taught, arrays, later) > 0.9
    assert right(taught, arrays, goods) > 0.9
    for name, value in model.state_dict().items():
        assert torch.equal(value, taught.state_dict()[name]) == (not name.startswith("sentiment.")), name


def test_the_ridge_holds_the_head_and_the_same_rows_give_the_same_head(world):
    model, arrays, _ = world
    chosen = {"lessons": (arrays, arrays.where(source="meals")), "anchors": (arrays, arrays.where(source="goods"))}
    one, two, held = copy_of(model), copy_of(model), copy_of(model)
    moved = refit_sentiment(one, **chosen)
    refit_sentiment(two, **chosen)
    assert torch.equal(one.sentiment.weight, two.sentiment.weight)
    assert refit_sentiment(held, **chosen, recipe=HeadRecipe(ridge=10.0)) < 0.1 * moved


def test_pooled_texts_are_what_the_head_reads_in_order_of_the_rows(world):
    model, arrays, _ = world
    rows = np.array([150, 3, 77])
    model.train()
    pooled = pool_texts(model, arrays, rows, HeadRecipe(token_budget=16))
    assert model.training
    logits = predict(model, arrays, rows, tags=False)["sentiment"]
    np.testing.assert_allclose(model.sentiment(pooled).detach().numpy(), logits, atol=1e-5)


def test_what_cannot_teach_is_refused(world):
    model, arrays, _ = world
    goods, meals, later = (arrays.where(source=name) for name in ("goods", "meals", "later meals"))
    with pytest.raises(ParameterError, match="test part"):
        refit_sentiment(copy_of(model), lessons=(arrays, later), anchors=(arrays, goods))
    bad = meals[arrays.sentiment[meals] == NEGATIVE]
    for lessons, anchors in ((bad, goods), (meals, goods[:0])):
        with pytest.raises(ParameterError, match="missing"):
            refit_sentiment(copy_of(model), lessons=(arrays, lessons), anchors=(arrays, anchors))


def run_head(folder, *options):
    parts = [str(folder / name) for name in ("w.pt", "tokenizer.json", "arrays.npz", "lessons.jsonl", "new.pt")]
    return CliRunner().invoke(app, ["head", *parts, *options])


def test_the_command_writes_all_weights_in_their_types_with_another_head(world):
    model, arrays, folder = world
    meals, goods = (arrays.where(source=name) for name in ("meals", "goods"))
    rows = [
        {"id": f"tr-en-{n:04d}", "text": e.text, "language": "en", "sentiment": SENTIMENTS[e.sentiment]}
        for n, e in enumerate(reviews(MEALS, "meals", "train", mixed=NEGATIVE))
    ]
    rows.append({**rows[-1], "id": "tr-en-9999", "text": "not asked for"})
    (folder / "lessons.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    torch.save({name: value.half() for name, value in model.state_dict().items()}, folder / "w.pt")
    np.save(folder / "goods.npy", goods)
    result = run_head(folder, "--last", "tr-en-0159", "--anchors", str(folder / "goods.npy"), "--ridge", "0.01")
    assert result.exit_code == 0, result.output
    old, new = (torch.load(folder / name, weights_only=True) for name in ("w.pt", "new.pt"))
    assert [name for name in old if not torch.equal(old[name], new[name])] == ["sentiment.weight", "sentiment.bias"]
    assert {value.dtype for value in new.values()} == {torch.float16}
    expected = copy_of(model)
    expected.load_state_dict({name: value.float() for name, value in old.items()})
    refit_sentiment(expected, lessons=(arrays, meals), anchors=(arrays, goods), recipe=HeadRecipe(ridge=0.01))
    torch.testing.assert_close(new["sentiment.weight"].float(), expected.sentiment.weight.detach(), atol=2e-3, rtol=0)

    np.save(folder / "goods.npy", goods + len(arrays.ends))
    assert "not rows of" in run_head(folder, "--anchors", str(folder / "goods.npy")).output
    assert "no lessons" in run_head(folder, "--first", "tr-zh").output
    (folder / "lessons.jsonl").write_text('{"id": "tr-en-0000"}\n')
    assert "line 1 is no labelled text" in run_head(folder).output
