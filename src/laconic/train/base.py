"""What a run starts from: an encoder with its tokenizer, given our head, and the encoder whose embeddings it learns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from laconic import features
from laconic.backends import first_line
from laconic.errors import InputError, ModelError
from laconic.export import deep_head, quiet
from laconic.hub import LABELS, keep_label
from laconic.train.data import padded


def classifier(
    base: str, *, asks: bool, embedding: int, with_features: bool, window: int, layers: int | None = None
) -> Any:
    """The base with our head, and with room for the features in its table of token types.

    asks: does it read questions? embedding: width of the vectors it learns, 0 for none. window: most tokens of a row.
    layers: so many of the base's, evenly spaced (None: all), for a smaller and faster model.
    """
    import torch

    names = [*(LABELS if asks else LABELS[:2]), *(f"embedding {k}" for k in range(embedding))]
    model, _ = _read(base, window)
    if layers is not None:
        _thin(model, layers, torch)
    _new_head(model, names, embedding, torch)
    if with_features:
        _add_features(model, torch)
    model.config.laconic = {"question": asks, "features": with_features, "embedding": embedding}
    return model


def policy(base: str, *, window: int, hidden: int | None) -> Any:
    """The base as a policy, P(drop) and P(keep) of every token, which reads no question.

    hidden: None: all of it learns, from its own keep/drop head; else the encoder is frozen under a new head with a
    hidden layer of that width.
    """
    model, fresh = _read(base, window)
    if hidden is not None:
        model.base_model.requires_grad_(False)
        model.classifier = deep_head(model.classifier.in_features, hidden)
    elif fresh:
        raise ModelError(
            f"{base} has no trained head; pass a keep/drop classifier, such as the LLMLingua-2 checkpoints or the "
            "checkpoint folder of laconic train classifier"
        )
    else:
        _keep_two(model, keep_label(Path(base), {"id2label": {str(k): v for k, v in model.config.id2label.items()}}))
    _name(model, LABELS[:2])
    features = bool((getattr(model.config, "laconic", None) or {}).get("features"))
    model.config.laconic = {"question": False, "features": features, "embedding": 0, "hidden": hidden or 0}
    return model


def tokenizer(base: str) -> Any:
    """The fast tokenizer of an encoder."""
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            base, model_max_length=1_000_000, trust_remote_code=False
        )
    except Exception as error:
        raise ModelError(f"{base} has no tokenizer that can be read ({first_line(error)})") from error
    if not tokenizer.is_fast:
        raise ModelError(f"{base} has no fast tokenizer, so no offsets; take a base with a tokenizer.json")
    return tokenizer


class Embedder:
    """Mean-pooled sentence embeddings of a frozen encoder."""

    def __init__(self, base: str) -> None:
        import torch
        import transformers

        self.torch, self.tokenizer = torch, tokenizer(base)
        with quiet():
            self.model = transformers.AutoModel.from_pretrained(base, trust_remote_code=False).eval()
        if torch.cuda.is_available():
            self.model.cuda()
        self.width = int(self.model.config.hidden_size)

    def __call__(self, texts: Sequence[str]) -> Any:
        """float32[n, width]; zeros for empty texts."""
        torch, out = self.torch, self.torch.zeros(len(texts), self.width)
        order = sorted((k for k, t in enumerate(texts) if t), key=lambda k: len(texts[k]))
        for start in range(0, len(order), 32):
            part = order[start : start + 32]
            made = self.tokenizer(
                [texts[k] for k in part],
                padding=True,
                pad_to_multiple_of=16,
                truncation=True,
                max_length=128,
                return_tensors="pt",
            ).to(self.model.device)
            with torch.no_grad():
                hidden = self.model(**made).last_hidden_state.float()
            weight = made["attention_mask"][..., None]
            out[part] = ((hidden * weight).sum(1) / weight.sum(1)).cpu()
        return out


def _read(base: str, window: int) -> tuple[Any, bool]:
    """An encoder that reads such windows, and whether its head is new."""
    import transformers

    try:
        with quiet():
            model, info = transformers.AutoModelForTokenClassification.from_pretrained(
                base, output_loading_info=True, trust_remote_code=False
            )
    except Exception as error:
        raise ModelError(f"{base} cannot be read as an encoder ({first_line(error)})") from error
    head = {k for k in info["missing_keys"] if k.startswith(("classifier", "score"))}
    if lost := sorted(set(info["missing_keys"]) - head):
        raise ModelError(f"{base} lacks weights ({', '.join(lost[:3])}): is it an encoder?")
    _fits(model, window)
    return model, bool(head)


def _fits(model: Any, window: int) -> None:
    """Refuse windows that the base has no positions for."""
    table = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    if table is None:
        return
    first = 0 if table.padding_idx is None else table.padding_idx + 1  # RoBERTa's start after the padding's id
    most = (table.num_embeddings - first) // padded(1) * padded(1)
    if window > most:
        raise InputError(f"window must be at most {most} for this base, got {window}")


def _thin(model: Any, layers: int, torch: Any) -> None:
    """Keep so many layers, from the first to the last."""
    have = model.config.num_hidden_layers
    if not 1 <= layers <= have:
        raise InputError(f"layers must be in [1, {have}] for this base, got {layers}")
    stacks = [
        (module, name)
        for module in model.base_model.modules()
        for name, child in module.named_children()
        if isinstance(child, torch.nn.ModuleList) and len(child) == have
    ]
    if len(stacks) != 1:
        raise InputError(f"{model.config.model_type} has no one stack of layers to take some of; leave layers out")
    owner, name = stacks[0]
    chosen = torch.linspace(0, have - 1, layers).long().tolist()
    setattr(owner, name, torch.nn.ModuleList([getattr(owner, name)[k] for k in chosen]))
    model.config.num_hidden_layers = layers


def _new_head(model: Any, names: Sequence[str], width: int, torch: Any) -> None:
    """A row for each name: the base's own where it has that label, else a new one.

    The last `width` start as the identity, where they can: the mean of a sentence encoder is its embedding already.
    """
    old, known = model.classifier, {v: k for k, v in model.config.id2label.items()}
    head = torch.nn.Linear(old.in_features, len(names))
    with torch.no_grad():
        head.weight.normal_(0, 0.02)
        head.bias.zero_()
        if width == old.in_features:
            head.weight[-width:] = torch.eye(width)
        for row, name in enumerate(names):
            if name in known:
                head.weight[row], head.bias[row] = old.weight[known[name]], old.bias[known[name]]
    model.classifier = head
    _name(model, names)


def _keep_two(model: Any, keep: int) -> None:
    """Of the rows of the head, drop and keep."""
    import torch

    old = model.classifier
    model.classifier = torch.nn.Linear(old.in_features, 2)
    with torch.no_grad():
        model.classifier.weight.copy_(old.weight[[1 - keep, keep]])
        model.classifier.bias.copy_(old.bias[[1 - keep, keep]])


def _name(model: Any, names: Sequence[str]) -> None:
    """What the rows of the head mean."""
    model.num_labels = len(names)
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {n: k for k, n in enumerate(names)}


def _add_features(model: Any, torch: Any) -> None:
    """A row of token types for each feature, near to the base's first one."""
    embeddings: Any = getattr(model.base_model, "embeddings", None)
    table = getattr(embeddings, "token_type_embeddings", None)
    if table is None:
        raise InputError(f"{model.config.model_type} has no token types to hold the features; train with features off")
    if (getattr(model.config, "laconic", None) or {}).get("features"):
        return  # it has them already
    wider = torch.nn.Embedding(features.TYPES, table.embedding_dim)
    with torch.no_grad():
        wider.weight.normal_(0, 0.005).add_(table.weight[0])
        wider.weight[0] = table.weight[0]
    embeddings.token_type_embeddings = wider
    model.config.type_vocab_size = features.TYPES
