"""What a model's output means, decided once and used by saliency, collectors and integrations alike.

    from xaicli.heads.decision import head_of

    head = head_of(model, x[:2], labels=y, facts=facts, task=task)   # runs the model once; or `decide(output, ...)`
    head.decided                         # "class logits of 10 classes: the model ends in a linear layer (addmm)"
    values = head.tensor(model(x))       # (N, K), (N, K, *places), or (N,) for one number a sample
    head.predictions(values)             # (N,)
    head.probabilities(values)           # (N, K)
    head.scalar(values, targets)         # (N,) what to differentiate
    head.label_prob(values, labels), head.top_prob(values)

Nothing is ever told from the numbers of a batch: only from the option `task=`, the operations that made the output, the
model's configuration, the checkpoint's facts, and the kind of the labels. Each sample's figures are its own.
"""
