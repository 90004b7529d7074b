"""Clauses, folds, linear models and teachers: what labels a text before the network learns from it."""

import os
from pathlib import Path

import numpy as np
import pytest

from workbench.engine.training.clauses import compose_clauses, is_chinese, read_clauses
from workbench.engine.training.corpus import NEGATIVE, POSITIVE, Example, Span, read_written
from workbench.engine.training.linear import LINEAR_MODELS, fit_linear
from workbench.engine.training.prepare import FOLDS, folds_of, prepare
from workbench.engine.training.vocabulary import train_vocabulary
from workbench.errors import ModelError, ParameterError
from workbench.tasks.labels import ENTITY_TAGS, ENTITY_TYPES, TOPICS

pytestmark = pytest.mark.export

if os.environ.get("CI"):
    import torch
else:
    torch = pytest.importorskip("torch", reason="the extra export is not installed: pip install -e '.[export]'")

from workbench.engine.training.batches import Arrays, Recipe  # noqa: E402
from workbench.engine.training.encoder import Encoder, EncoderConfig  # noqa: E402
from workbench.engine.training.losses import labels_on  # noqa: E402
from workbench.engine.training.run import Corpus, add_clauses, learn_tasks, read_rows, teach_texts  # noqa: E402
from workbench.engine.training.teachers import Taught, blend, cross_fit, lessons, teacher_config  # noqa: E402

torch.set_num_threads(1)  # the networks are so small that a second core only waits

ROOT = Path(__file__).resolve().parents[2]
GOOD, BAD = ("很好", "喜欢", "满意", "不错呀"), ("很差", "讨厌", "失望", "太烂了")
CPU = torch.device("cpu")


def review(good, number, random):
    words = [str(word) for word in random.choice(GOOD if good else BAD, 4)]
    return f"{'，'.join(words)}。编号{number}"


def shop(count=240):
    """Reviews of zh_shopping, four in six to train on, with brands marked in some texts of another set."""
    random = np.random.default_rng(0)
    made = []
    for number in range(count):
        good = number % 2
        split = ("train", "train", "train", "train", "dev", "test")[number // 2 % 6]
        label = POSITIVE if good else NEGATIVE
        price = tuple(int(topic == "price") for topic in TOPICS)
        text = review(good, number, random)
        made.append(Example(text, "zh_shopping", split, sentiment=label, two_class=True, topics=price))
        if number % 4 == 0:
            name = f"华为 {text}"
            made.append(
                Example(name, "zh_ecommerce", split, entities=(Span(0, 2, "brand"),), entity_types=("brand",))
            )
    return made


def known(source, text, **more):
    return Example(text, source, "train", **more)


# --- folds, clauses ----------------------------------------------------------------------------------------------


def test_folds_keep_groups_and_equal_words_together_and_leave_out_what_teaches_no_label():
    app = [known("app_reviews", f"text {n}", app_class=0, group=f"app_reviews {n // 3}") for n in range(90)]
    folds = folds_of(app)
    assert set(folds.tolist()) == set(range(FOLDS))
    assert (folds.reshape(-1, 3) == folds[::3, None]).all()
    same = [known("zh_shopping", "很好", sentiment=2), known("own_sentiment_zh", "很好", sentiment=2)]
    assert len(set(folds_of(same).tolist())) == 1
    others = [Example("很好", "zh_shopping", "dev", sentiment=2), known("segments", "很好")]
    assert folds_of(others).tolist() == [-1, -1]
    assert folds_of(app[5:]).tolist() == folds[5:].tolist()


def test_clauses_are_parts_of_training_reviews_each_once_and_no_held_out_text():
    long = "屏幕很亮，电池不耐用，包装很严实。物流比说的慢了两天！不过客服回得快，总的来说还行。"
    english = "The screen is bright and sharp. The battery is gone by noon. Support answered within a day. I kept it."
    examples = [
        known("zh_shopping", long, sentiment=2),
        known("zh_shopping", long + "再来一次。", sentiment=2),
        known("en_amazon", english, sentiment=2),
        known("zh_ecommerce", "苹果手机壳，防摔，透明，新款，包邮，送膜。", entity_types=("product",)),
        Example("电池不耐用", "zh_shopping", "test", sentiment=0),
        Example("从没见过这么差的，真的。再也不买了。", "zh_shopping", "dev", sentiment=0),
    ]
    clauses = [
        c for seed in range(30) for c in read_clauses(examples, ["手写笔很跟手，就是贵。续航也好。"], seed=seed)
    ]
    texts = {clause.text for clause in clauses}
    assert "屏幕很亮" in texts
    assert any(text.startswith("The battery is gone by noon") for text in texts)
    assert any("手写笔很跟手" in text for text in texts)
    assert "电池不耐用" not in texts  # a test text as a whole
    assert not any("再也不买" in text or "手机壳" in text for text in texts)
    assert not texts & {example.text for example in examples}
    assert max(len(text) for text in texts if is_chinese(text)) <= 0.9 * len(long + "再来一次。")
    assert {(c.source, c.split, c.sentiment, c.topics) for c in clauses} == {("segments", "train", None, None)}
    once = [clause.text for clause in read_clauses(examples, [], seed=3)]
    assert len(once) == len(set(once))
    assert once == [clause.text for clause in read_clauses(examples, [], seed=3)]
    assert len(read_clauses(examples, [], chinese=2, english=1, seed=3)) == 3


def test_praise_and_blame_are_joined_with_what_comes_last_weighing_more():
    clauses = [
        known("segments", text) for text in ("屏幕很亮", "客服很差。", "说不清楚", "no Chinese here", "好" * 40)
    ]
    made = compose_clauses(clauses, np.array([0.97, 0.02, 0.5, 0.99, 0.99]), count=200)
    assert len({example.text for example in made}) == len(made)
    last = {example.text.endswith("客服很差"): example.shares for example in made}
    assert all(example.text.endswith(("客服很差", "屏幕很亮")) for example in made)
    assert last[True][0] > last[False][0]  # more negative where blame comes last
    assert last[False][2] > last[True][2]
    assert all(sum(shares) == pytest.approx(1) for shares in last.values())
    assert compose_clauses(clauses, np.array([0.97, 0.5, 0.5, np.nan, 0.99])) == []


def test_chinese_is_told_by_its_characters():
    assert is_chinese("手机 iPhone 15 好用")
    assert not is_chinese("The 小米 phone is a good one, I would buy it again at any time")
    assert not is_chinese("")


def test_written_texts_have_all_three_labels():
    written = list(read_written(ROOT / "calibration"))
    assert {example.source for example in written} == {"written_en", "written_zh"}
    for example in written:
        assert example.split == "train"
        assert example.sentiment is not None
        assert sum(example.topics) >= 1
        assert example.entity_types == ENTITY_TYPES
        for span in example.entities:
            assert example.text[span.start : span.end].strip()


# --- linear models -----------------------------------------------------------------------------------------------


def test_linear_models_say_nothing_of_a_text_that_they_learned_by_heart():
    pytest.importorskip("sklearn", reason="the extra train is not installed: pip install -e '.[train]'")
    rows = [
        *shop(),
        known("segments", "很好，喜欢"),
        known("segments", "讨厌，失望"),
        known("segments", "no Chinese"),
    ]
    # A word that stands in one text alone, whose label is wrong: only a fit that saw it could know.
    wrong = known("zh_shopping", "很好，喜欢，满意，不错呀，魑魅魍魉", sentiment=NEGATIVE, two_class=True)
    said = fit_linear([*rows, wrong])
    assert set(said) == {"zh"}  # the other sets have no texts
    zh = said["zh"]
    assert zh.shape == (len(rows) + 1, 2)
    labels = np.array([-1 if row.sentiment is None else row.sentiment for row in rows])
    learned = np.array([row.source == "zh_shopping" and row.split == "train" for row in rows])
    right = (zh[:-1][learned].argmax(axis=1) * 2) == labels[learned]
    assert right.mean() > 0.95
    assert zh[-1, 1] > 0.6
    held = np.array([row.split != "train" for row in rows])
    assert np.isnan(zh[:-1][held]).all()
    assert zh[-4, 1] > 0.8 > 0.2 > zh[-3, 1]
    assert np.isnan(zh[-2]).all()  # not asked about English
    np.testing.assert_array_equal(zh, fit_linear([*rows, wrong])["zh"])


def test_without_scikit_learn_the_command_to_install_it_is_told(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "sklearn.exceptions", None)
    with pytest.raises(ModelError, match=r"pip install .*train.* teachers = 0"):
        fit_linear(shop())
    assert fit_linear([known("en_amazon", "too few", sentiment=2)]) == {}
    assert set(LINEAR_MODELS) == {"zh", "amazon", "clothing", "app"}


# --- teachers ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    examples = shop()
    made = [known("segments", "很好，喜欢"), known("composed", "很好，就是太烂了", shares=(0.55, 0.35, 0.1))]
    tokenizer = train_vocabulary([e.text for e in examples], size=400, least_chinese=1)
    path = tmp_path_factory.mktemp("arrays") / "arrays.npz"
    prepare(examples, ["没有标签的文本"], tokenizer, path, made=made)
    return Arrays(path)


def test_arrays_know_folds_and_fixed_shares(arrays):
    made = [arrays.where(source=name)[0] for name in ("unlabelled", "segments", "composed")]
    assert made == list(range(len(arrays.ends) - 3, len(arrays.ends)))
    assert arrays.fold[made].tolist() == [-1, -1, -1]
    assert np.isfinite(arrays.shares).any(axis=1).nonzero()[0].tolist() == made[2:]
    assert arrays.shares[made[2]] == pytest.approx([0.55, 0.35, 0.1])
    train = arrays.where(split="train", source="zh_shopping")
    assert set(arrays.fold[train].tolist()) == set(range(FOLDS))
    assert (arrays.fold[arrays.where(split="test")] == -1).all()
    assert set(arrays.source[read_rows(arrays, np.arange(len(arrays.ends)))]) == {
        arrays.sources.index(name) for name in ("zh_shopping", "zh_ecommerce", "unlabelled")
    }


def test_labels_of_the_word_list_can_be_left_out(arrays):
    shopping = arrays.source == arrays.sources.index("zh_shopping")
    assert (labels_on(arrays, CPU)["topics"].numpy()[shopping] >= 0).all()
    without = labels_on(arrays, CPU, weak_topics=False)
    assert (without["topics"].numpy()[shopping] == -1).all()
    assert (without["sentiment"].numpy() == arrays.sentiment).all()


def test_a_teacher_never_judges_a_text_whose_label_it_learned(arrays, monkeypatch):
    from workbench.engine.training import teachers

    chosen = arrays.where(split="train")
    learned, judged = [], []
    monkeypatch.setattr(teachers, "fine_tune", lambda model, a, rows, *_, **__: learned.append(rows) or [])
    add = Taught.add

    def watched(self, model, a, rows, weight):
        judged.append(rows)
        add(self, model, a, rows, weight)

    monkeypatch.setattr(Taught, "add", watched)
    model = Encoder(EncoderConfig(400, width=64, layers=1, inner=64, positions=64))
    taught = cross_fit(model, arrays, chosen, Recipe(steps=1, token_budget=512))
    assert len(learned) == len(judged) == FOLDS
    free = chosen[arrays.fold[chosen] < 0]
    for seen, asked in zip(learned, judged, strict=True):
        assert len(np.intersect1d(seen, asked)) == 0
        assert np.isin(free, asked).all()
        assert not np.isin(free, seen).any()
    counts = np.bincount(np.concatenate(judged), minlength=len(arrays.ends))
    assert (counts[chosen[arrays.fold[chosen] >= 0]] == 1).all()
    assert (counts[free] == FOLDS).all()
    assert taught.sentiment[chosen].sum(axis=1) == pytest.approx(1, abs=1e-5)  # means, not sums
    assert taught.known.nonzero()[0].tolist() == chosen.tolist()
    assert (taught.sentiment[arrays.where(split="test")] == 0).all()
    token = arrays.starts[arrays.where(split="train", source="zh_ecommerce")[0]]
    assert float(taught.entities[token].sum()) == pytest.approx(1, abs=0.01)
    with pytest.raises(ParameterError, match="at least two folds"):
        cross_fit(model, arrays, free, Recipe(steps=1))


def test_the_linear_models_part_and_fixed_shares_are_mixed_in(arrays):
    count = len(arrays.ends)
    taught = Taught.nothing(arrays)
    taught.sentiment[:] = (0.3, 0.5, 0.2)
    taught.known[:] = True
    taught.known[0] = False
    said = np.full((count, 2), np.nan, np.float32)
    said[:5] = (0.1, 0.9)
    mixed = blend(taught, arrays, {"zh": said}, {"zh": 0.5})
    assert mixed.sentiment[0] == pytest.approx([0.3, 0.5, 0.2])  # nobody was asked
    # 0.6 to 0.4 among what is not neutral, half and half with 0.1 to 0.9; neutral stays.
    assert mixed.sentiment[1] == pytest.approx([0.175, 0.5, 0.325])
    assert mixed.sentiment[6] == pytest.approx([0.3, 0.5, 0.2])
    assert mixed.sentiment[-1] == pytest.approx([0.55, 0.35, 0.1])
    three = np.full((count, 3), np.nan, np.float32)
    three[2] = (1, 0, 0)
    assert blend(taught, arrays, {"clothing": three}, {"clothing": 0.5}).sentiment[2] == pytest.approx(
        [0.65, 0.25, 0.1]
    )
    assert taught.sentiment[1] == pytest.approx([0.3, 0.5, 0.2])  # left as it was
    columns = lessons(mixed, arrays, CPU)
    assert not columns["sentiment_rows"][0]
    assert not columns["topics_rows"][-1]  # a composed text teaches sentiment only
    named = torch.from_numpy(arrays.source == arrays.sources.index("zh_ecommerce"))
    assert not columns["sentiment_rows"][named].any()
    assert columns["entity_rows"][named][1:].all()


def test_sizes_of_the_bundled_models_teachers():
    student = EncoderConfig(16_000)
    wide, deep, third = (teacher_config(student, number) for number in range(3))
    assert (wide.layers, wide.width, wide.inner, wide.pre_norm) == (8, 512, 2048, True)
    assert (deep.layers, deep.width, deep.inner, deep.pre_norm) == (12, 384, 1536, True)
    assert third == wide
    with torch.device("meta"):
        sizes = [sum(p.numel() for p in Encoder(config).parameters()) for config in (wide, deep)]
    assert sizes == [34_490_004, 28_103_316]


def test_a_network_learns_from_teachers_what_labels_do_not_say(tmp_path):
    pytest.importorskip("sklearn", reason="the extra train is not installed: pip install -e '.[train]'")
    corpus = add_clauses(Corpus(tuple(shop(1200)), tuple(f"{good}，{good}，编号" for good in GOOD)))
    assert corpus.made
    assert all(len(said) == len(corpus) for said in corpus.linear.values())
    tokenizer = train_vocabulary(corpus.texts("train"), size=400, least_chinese=1)
    prepare(corpus.examples, corpus.unlabelled, tokenizer, tmp_path / "a.npz", made=corpus.made)
    arrays = Arrays(tmp_path / "a.npz")
    learned = arrays.where(split="train")
    config = EncoderConfig(400, width=64, layers=1, inner=64, positions=64)
    words, tasks = Recipe(4, 2048), Recipe(60, 2048, learning_rate=3e-3, average=0.8)
    taught = teach_texts(corpus, arrays, learned, config, count=1, words=words, tasks=tasks, device=CPU)
    free = arrays.where(source="unlabelled")
    said = taught["sentiment"][torch.from_numpy(free)]
    assert (said[:, POSITIVE] > said[:, NEGATIVE]).all()
    torch.manual_seed(0)
    model = Encoder(config)
    losses = learn_tasks(model, arrays, learned, tasks, taught, log_every=59)
    assert losses[-1]["soft_sentiment"] < losses[0]["soft_sentiment"]
    assert len(ENTITY_TAGS) == taught["entities"].shape[1]
    assert teach_texts(corpus, arrays, learned, config, count=0, words=words, tasks=tasks, device=CPU) is None


@pytest.mark.data
@pytest.mark.slow
def test_one_command_trains_from_the_data_folder_with_a_teacher(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from workbench.engine.training.__main__ import app
    from workbench.tasks.spec import load_spec

    pytest.importorskip("sklearn", reason="the extra train is not installed: pip install -e '.[train]'")
    data = os.environ.get("WORKBENCH_DATA")
    if not data:
        pytest.skip("needs labelled texts: set WORKBENCH_DATA to the folder that has text/*.parquet")
    monkeypatch.setenv("WORKBENCH_HOME", str(ROOT))
    small = "--rows 600 --vocabulary 2000 --layers 1 --width 64 --pretrain-steps 2 --tune-steps 6 --batch-tokens 1024"
    where = ["--data", str(Path(data).resolve()), "--out", str(tmp_path / "mine"), "--name", "mine"]
    done = CliRunner().invoke(app, ["train", *where, *small.split(), "--teachers", "1", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    card = load_spec(tmp_path / "mine").card
    uses = {item["name"]: item["use"] for item in card["training"]["sets"] if item["rows"]}
    assert card["training"]["teachers"] == 1
    assert uses["segments"] == "labelled by teachers"
    assert uses["unlabelled"] == "pre-training, labelled by teachers"
    assert uses["written_zh"] == "pre-training, fine-tuning"
    assert (tmp_path / "mine-training" / "weights.pt").is_file()
    refused = CliRunner().invoke(app, ["train", *where, "--rows", "600"])
    assert refused.exit_code == 1
    assert "exists and is not empty" in refused.output
