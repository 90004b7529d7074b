import itertools
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime.tiny_model import TOML, TOPIC_LABELS, make_tiny_model
from workbench.errors import ModelError
from workbench.runtime import open_session, read
from workbench.runtime.onnx import OnnxSession
from workbench.runtime.read import make_encoders, read_texts
from workbench.runtime.workers import Encoders
from workbench.tasks.decode import pool_labels

WORDS = st.sampled_from(
    ["good", "bad", "the", "price", "phone", "很好", "质量差", "物流快", "DHP486", "👍", "é", "(x)", "!"]
)
TEXTS = st.lists(WORDS, min_size=1, max_size=100).map(" ".join)
ODD = st.one_of(st.none(), st.text(st.characters(), max_size=60), TEXTS)


@pytest.fixture(scope="module")
def session(tiny):
    with open_session(tiny, threads=2) as opened:
        yield opened


def answers(reading, index):
    return (
        reading.sentiment[index],
        reading.topics[index],
        None if reading.entities[index] is None else [(e.start, e.end, e.label) for e in reading.entities[index]],
        reading.language[index],
        reading.reason[index],
    )


@given(st.lists(ODD, min_size=1, max_size=25), st.randoms(use_true_random=False), st.integers(8, 2000))
@settings(max_examples=60, deadline=None)
def test_the_same_text_gets_the_same_answer_in_any_batch(session, texts, random, budget):
    with OnnxSession(session.spec.folder, threads=2, token_budget=budget) as other:
        together = read_texts(other, texts)
    order = list(range(len(texts)))
    random.shuffle(order)
    shuffled = read_texts(session, [texts[i] for i in order])
    assert len(together) == len(shuffled) == len(texts)
    for place, index in enumerate(order):
        assert answers(shuffled, place) == answers(together, index)
    assert shuffled.p_sentiment == pytest.approx(together.p_sentiment[order], abs=1e-5, nan_ok=True)
    assert shuffled.p_topics == pytest.approx(together.p_topics[order], abs=1e-5, nan_ok=True)
    # By itself and among others the very same bits, so that no threshold can fall between two readings.
    alone = read_texts(session, texts[:1])
    place = order.index(0)
    assert answers(alone, 0) == answers(shuffled, place)
    assert alone.p_sentiment[0].tobytes() == shuffled.p_sentiment[place].tobytes()
    assert alone.p_topics[0].tobytes() == shuffled.p_topics[place].tobytes()
    assert alone.entities[0] == shuffled.entities[place]


@given(st.lists(ODD, max_size=12))
@settings(max_examples=80, deadline=None)
def test_every_text_gets_a_row(session, texts):
    reading = read_texts(session, texts)
    assert len(reading.reason) == len(reading.sentiment) == len(reading.entities) == len(texts)
    for index, text in enumerate(texts):
        if reading.reason[index] is None:
            assert reading.p_sentiment[index].sum() == pytest.approx(1, abs=1e-5)
            assert reading.topics[index]
            for entity in reading.entities[index]:
                assert text[entity.start : entity.end] == entity.text
        else:
            assert reading.topics[index] is None
            assert reading.entities[index] is None
            assert np.isnan(reading.p_topics[index]).all()


def test_texts_that_nothing_can_be_said_about(session):
    texts = [None, "", " \n", "\x00\x07", "123", "👽👽", "ภาษาไทย", "\ud800"]
    reading = read_texts(session, texts)
    assert reading.reason == [
        "null",
        "empty",
        "only spaces and control characters",
        "only spaces and control characters",
        "no letters",
        "emoji the model does not know",
        "no words or characters the model knows",
        "only spaces and control characters",
    ]
    assert reading.sentiment == [None] * len(texts)
    assert reading.language == [None] * len(texts)
    assert np.isnan(reading.p_sentiment).all()


def test_emoji_that_the_vocabulary_knows_have_a_sentiment(session):
    reading = read_texts(session, ["👍"])
    assert reading.sentiment[0] is not None
    assert reading.reason == ["only emoji: a sentiment, but no topic and no entity"]
    assert read_texts(session, ["👍"], ("sentiment",)).reason == [None]


def test_a_task_alone_gives_what_it_gives_with_the_others(session):
    texts = ["good price", "质量差 DHP486", "the bad phone " * 60]
    together = read_texts(session, texts)
    assert read_texts(session, texts, ["sentiment"]).sentiment == together.sentiment
    assert read_texts(session, texts, ["topics"]).topics == together.topics
    entities = read_texts(session, texts, ["entities"])
    assert entities.entities == together.entities
    assert entities.sentiment == []
    assert together.topic_names == tuple(TOPIC_LABELS)


def test_a_long_text_is_read_whole(session):
    sentence = "the price is good 。 "
    reading = read_texts(session, [sentence * 5000, sentence])
    assert reading.reason == [None, None]
    found = reading.entities[0]
    assert found == sorted(found, key=lambda entity: entity.start)
    assert len({(entity.start, entity.end) for entity in found}) == len(found)
    assert all(left.end <= right.start for left, right in itertools.pairwise(found))
    assert reading.p_sentiment[0].sum() == pytest.approx(1, abs=1e-5)


def test_windows_of_a_long_text_are_weighed_by_their_tokens(session):
    text = "good " * 100 + "bad " * 100
    (item,) = session.encoder.encode([text], offsets=False)
    assert len(item.windows) > 2
    parts, weights = [], []
    for start, end in item.windows:
        ids = np.array([[2, *item.ids[start:end], 3]], np.int32)
        logits = session.run(ids, np.zeros((1, 1, 1, ids.shape[1]), np.float32), ["sentiment", "topics"])
        powers = np.exp(logits["sentiment"][0])
        parts.append((powers / powers.sum(), 1 / (1 + np.exp(-logits["topics"][0]))))
        weights.append(end - start)
    reading = read_texts(session, [text])
    expected = np.average([shares for shares, _ in parts], axis=0, weights=weights)
    assert reading.p_sentiment[0] == pytest.approx(expected, abs=1e-5)
    assert reading.p_topics[0] == pytest.approx(pool_labels(np.stack([t for _, t in parts]), weights), abs=1e-5)


def test_temperature_follows_the_language(session, tmp_path):
    cold = make_tiny_model(tmp_path / "cold", toml=TOML.replace("zh = 2.0", "zh = 1.0"))
    with open_session(cold) as other:
        english, chinese = read_texts(other, ["good price", "质量很好"]).p_sentiment
    warm = read_texts(session, ["good price", "质量很好"]).p_sentiment
    assert warm[0] == pytest.approx(english, abs=1e-6)
    assert warm[1].max() < chinese.max()


def test_chunks_are_bounded_and_change_nothing(session, monkeypatch):
    texts = [f"good price {number}" for number in range(40)] + ["bad " * 400, "the"]
    whole = read_texts(session, texts)
    monkeypatch.setattr(read, "_CHUNK_TEXTS", 7)
    monkeypatch.setattr(read, "_CHUNK_CHARACTERS", 90)
    ranges = list(read.split_texts(texts))
    assert [start for start, _ in ranges[1:]] == [end for _, end in ranges[:-1]]
    assert all(end - start <= 7 for start, end in ranges)
    pieces = read_texts(session, texts)
    assert pieces.sentiment == whole.sentiment
    assert pieces.entities == whole.entities
    assert pieces.p_sentiment == pytest.approx(whole.p_sentiment, abs=1e-6)


@given(st.integers(0, 90_000), st.integers(1, 20))
@settings(max_examples=200, deadline=None)
def test_a_list_is_cut_so_that_all_who_tokenize_have_work(count, parts):
    ranges = list(read.split_texts(["good"] * count, parts=parts))
    sizes = [end - start for start, end in ranges]
    assert [0, *(end for _, end in ranges)] == [*(start for start, _ in ranges), count]
    assert all(0 < size <= 4096 for size in sizes)
    if parts == 1:
        assert sizes[:-1] == [4096] * (len(sizes) - 1), "there is nobody to share with"
    elif count < 1280:
        assert len(sizes) == (count > 0)
    else:
        assert min(sizes) >= 600
        # Each has two, or texts are too few for it: then ranges are as small as they may be.
        assert len(sizes) >= 2 * parts - 1 or max(sizes) < 2 * 640


def test_long_texts_are_cut_by_their_characters_too():
    ranges = list(read.split_texts(["good " * 10_000] * 2000, parts=4))
    assert {end - start for start, end in ranges} == {20}


def test_what_tokenizes_says_in_how_many_chunks_a_list_is_read(session):
    texts = [f"good price {number} 质量" for number in range(3000)]
    with (
        Encoders(session.encoder, workers=2) as two,
        Encoders(session.encoder, workers=14) as many,
        make_encoders(session) as none,
    ):
        assert [len(chunk) for chunk in read.share_texts(texts, none)] == [3000]
        assert [len(chunk) for chunk in read.share_texts(texts, two)] == [750] * 4
        assert [len(chunk) for chunk in read.share_texts(texts[:2560], many)] == [640] * 4
        found = [list(read.read_chunks(session, read.share_texts(texts, own), encoders=own)) for own in (none, two)]
    assert [len(parts) for parts in found] == [1, 4]
    whole, parts = found
    for column in ("p_sentiment", "p_topics", "sentiments", "topics", "topic_counts", "reasons", "languages"):
        together = np.concatenate([getattr(part, column) for part in parts])
        assert together.tobytes() == getattr(whole[0], column).tobytes()
    assert [entities for part in parts for entities in part.entities] == whole[0].entities


def test_a_lone_list_is_read_without_processes(session):
    texts = ["good price", None, "质量很好", "bad " * 400]
    whole = read_texts(session, texts)
    with Encoders(session.encoder, workers=1) as encoders:
        encoders.start()
        assert encoders.wait_until_ready(30)
        encoders._processes[0].kill()  # nobody is told of a process that was lost
        [part] = read.read_chunks(session, [texts], encoders=encoders)
    assert part.p_sentiment.tobytes() == whole.p_sentiment.tobytes()
    assert part.entities == whole.entities


def test_the_same_words_are_read_once(session, monkeypatch):
    rows = []
    run = session.run

    def counting(input_ids, bias, outputs):
        rows.append(len(input_ids))
        return run(input_ids, bias, outputs)

    monkeypatch.setattr(session, "run", counting)
    assert len(set(read_texts(session, ["good price"] * 50, ["sentiment"]).sentiment)) == 1
    assert rows == [2]  # one text, and its twin, for one row alone is computed in another way


@pytest.mark.parametrize(
    ("said", "wanted"),
    [("[network]\nbatch_invariant = true", 1), ("[network]\nbatch_invariant = false", 2), ("network = 3", 2)],
)
def test_a_lone_text_has_no_twin_where_the_card_says_that_it_needs_none(tmp_path, monkeypatch, said, wanted):
    toml = f"{TOML}\n{said}\n" if said.startswith("[") else f"{said}\n{TOML}"
    rows = []
    with open_session(make_tiny_model(tmp_path / "model", toml=toml), threads=1) as opened:
        run = opened.run
        monkeypatch.setattr(
            opened, "run", lambda ids, bias, outputs: rows.append(len(ids)) or run(ids, bias, outputs)
        )
        read_texts(opened, ["good price"], ["sentiment"])
    assert rows == [wanted]


def test_progress_counts_every_text(session, capsys):
    read_texts(session, ["good", None, "good", "bad " * 300, "👽"], progress=True)
    assert "5/5" in capsys.readouterr().err


def test_unknown_and_missing_tasks(session, tmp_path):
    with pytest.raises(ModelError, match="No task is named 'mood'"):
        read_texts(session, ["good"], ["mood"])
    toml = TOML[: TOML.index("[outputs.topics]")]
    with (
        open_session(make_tiny_model(tmp_path / "one", toml=toml)) as one,
        pytest.raises(ModelError, match=r"tiny 1 gives sentiment, not topics.*\[models\]"),
    ):
        read_texts(one, ["good"], ["sentiment", "topics"])


def test_topics_of_a_classifier(tmp_path):
    toml = TOML.replace('kind = "labels"', 'kind = "classes"')
    with open_session(make_tiny_model(tmp_path / "classes", toml=toml)) as session:
        reading = read_texts(session, ["good price", "bad " * 200])
    assert all(len(topics) == 1 for topics in reading.topics)
    assert reading.p_topics.sum(1) == pytest.approx([1, 1], abs=1e-5)


def test_chunks_as_they_come_give_what_they_give_together(session):
    texts = [f"good price {number} 质量" for number in range(30)] + [None, "👍", "bad " * 200, "good price 3 质量"]
    whole = read_texts(session, texts)
    taken, told = [], []

    def chunks():
        for start in range(0, len(texts), 4):
            taken.append(start)
            yield texts[start : start + 4]

    with read.make_encoders(session) as encoders:
        found = []
        for part in read.read_chunks(session, chunks(), encoders=encoders, advance=told.append):
            found.append(part)
            assert len(taken) - len(found) <= encoders.ahead, "more is taken than memory was meant for"
    assert [len(part) for part in found] == [4] * 8 + [2]
    assert sum(told) == len(texts)
    assert np.concatenate([part.p_sentiment for part in found]).tobytes() == whole.p_sentiment.tobytes()
    assert np.concatenate([part.p_topics for part in found]).tobytes() == whole.p_topics.tobytes()
    assert [entities for part in found for entities in part.entities] == whole.entities
    topics = [tuple(part.topic_names[at] for at in part.topics) for part in found]
    assert sum(topics, ()) == sum((own for own in whole.topics if own), ())


def test_a_source_that_fails_and_a_reader_that_leaves_end_the_reading(session):
    def chunks():
        yield from [["good price"]] * 20
        raise OSError("the file is gone")

    before = {thread.name for thread in threading.enumerate()}
    with read.make_encoders(session) as encoders:
        with pytest.raises(OSError, match="the file is gone"):
            list(read.read_chunks(session, chunks(), encoders=encoders))
        some = read.read_chunks(session, chunks(), encoders=encoders)
        assert len(next(some)) == 1
        some.close()
    left = {thread.name for thread in threading.enumerate()} - before
    assert not [name for name in left if not name.startswith("onnxruntime")]


def test_a_run_that_fails_is_told_in_its_turn(session, monkeypatch):
    def run_packed(texts, outputs, *, done=None):
        if 20 in texts.lengths:
            raise ModelError("the device is gone")
        return type(session).run_packed(session, texts, outputs, done=done)

    monkeypatch.setattr(session, "run_packed", run_packed)
    chunks = [["good"], ["good price"], ["good " * 18], *[["bad"]] * 20]
    with read.make_encoders(session) as encoders:
        found = read.read_chunks(session, chunks, encoders=encoders)
        assert len(next(found)) == len(next(found)) == 1
        with pytest.raises(ModelError, match="the device is gone"):
            next(found)


def test_a_large_machine_has_processes_enough(tiny, monkeypatch):
    monkeypatch.setattr(read, "usable_cores", lambda: 224)
    with open_session(tiny) as session:
        monkeypatch.setattr(type(session), "backend", "tensorrt")
        with make_encoders(session) as encoders:
            assert encoders._workers == 16
