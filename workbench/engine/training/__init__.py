"""Training the bundled models: corpus, vocabulary, masked-language pre-training, multi-task fine-tuning.

    read_examples, read_unlabelled      corpus       data folder -> texts with what is known about them
    read_clauses, compose_clauses       clauses      training reviews -> clauses, short mixed texts
    fit_linear                          linear       texts -> probabilities of linear models, out of fold
    train_vocabulary                    vocabulary   texts -> WordPiece, Chinese by character
    prepare                             prepare      examples -> arrays of token ids (all that a GPU host needs)
    pretrain, fine_tune                 loops        arrays -> weights
    teach, blend, lessons               teachers     larger networks, cross-fitted -> what to learn beside the labels
    Encoder                             encoder      the network
    evaluate, score                     measure      logits -> accuracy and F1 by set
    calibrate, held_out_rows            calibrate    logits -> temperatures and thresholds
    write_graph                         exported     weights -> ONNX, checked against torch
    bundle_model                        bundle       weights -> model folder, calibrated and measured, with its card
    train_model                         run          all of it in one call
    DATA_SETS                           sets         licence and origin of every set

`prepare`, `run` and `bundle` need polars or tokenizers, the rest numpy and torch. The notebook fine_tune runs it all.
"""
