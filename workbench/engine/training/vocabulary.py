"""A WordPiece vocabulary for Chinese and English: Chinese by character, the rest by pieces, case kept.

Case is kept because names are told by it; the sentiment of a text hardly depends on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

__all__ = ["SPECIAL_TOKENS", "train_vocabulary"]

_SIGNS = tuple(map(ord, "❤♥★☆✓✔✗✘⭐👌👏🙏💯🔥🎉💔💩🤔🤣🤮🥰🥲🤬🤯🤗⚠❌✅💰📦🚚🐛"))

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def train_vocabulary(texts: Iterable[str], *, size: int = 16_000, least_chinese: int = 8) -> Tokenizer:
    """Train a WordPiece tokenizer of at most ``size`` pieces.

    A Chinese character seen at least ``least_chinese`` times has a piece of its own. The template is
    [CLS] text [SEP]. The library breaks ties by chance, so
    two runs may differ in a few rare pieces: a tokenizer belongs to its weights.
    """
    texts = list(texts)
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=64))  # noqa: S106 - a token
    # NFKC folds full-width letters and digits; control characters go; Chinese is set apart by character.
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.BertNormalizer(
                clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=False
            ),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Digits(individual_digits=False)]
    )
    counts = Counter(char for text in texts for char in text if "\u4e00" <= char <= "\u9fff")
    alphabet = [char for char, count in sorted(counts.items()) if count >= least_chinese]
    alphabet += [chr(code) for code in range(33, 127)]
    # Faces, hearts, hands and a few signs carry an opinion, but are rare in the training texts.
    alphabet += [chr(code) for code in (*range(0x1F600, 0x1F645), *range(0x1F44A, 0x1F451), *_SIGNS)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=alphabet,
        limit_alphabet=len(set(alphabet)) + 600,
        min_frequency=4,
        show_progress=False,
        continuing_subword_prefix="##",
    )
    tokenizer.train_from_iterator(texts, trainer)
    cls, sep = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", cls), ("[SEP]", sep)]
    )
    return tokenizer
