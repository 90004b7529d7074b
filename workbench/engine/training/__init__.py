"""Training the bundled models: corpus, vocabulary, masked-language pre-training, multi-task fine-tuning.

    read_examples, read_unlabelled      corpus       data folder -> texts with what is known about them
    train_vocabulary                    vocabulary   texts -> WordPiece, Chinese by character
    prepare                             prepare      examples -> arrays of token ids (all that a GPU host needs)
    pretrain, fine_tune                 loops        arrays -> weights
    Encoder                             encoder      the network

`prepare` needs polars and tokenizers, the rest numpy and torch.
"""
