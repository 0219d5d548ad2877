"""LoRA over the very tensors of a base, and its folder: PEFT's format, with a card that binds it to that base."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from laconic.backends import first_line
from laconic.errors import InputError, ModelError
from laconic.hub import sha256
from laconic.soft.base import Base, fingerprint
from laconic.soft.memory import Binding
from laconic.soft.replay import recompute

FORMAT = 1
FULL = "full"  # the mode of what reads full contexts; any other makes memories
_CARD = "soft.json"
_PREFIX = "base_model.model."  # PEFT's, before the names of the base

Rule = tuple[str, object, bool]  # what must hold, the value, does it?
Parts = tuple[dict[str, Tensor], ...]
S = TypeVar("S", bound="Lora")
A = TypeVar("A", bound="Adapted[Any]")


class Lora(Protocol):
    """The settings that every adapter has: a frozen dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def mode(self) -> str: ...
    @property
    def window(self) -> int: ...
    @property
    def rank(self) -> int: ...
    @property
    def alpha(self) -> float: ...
    @property
    def targets(self) -> tuple[str, ...]: ...
    @property
    def dropout(self) -> float: ...
    @property
    def seed(self) -> int: ...


def rules(lora: Lora) -> list[Rule]:
    """What must hold for them."""
    return [
        ("window must be 1 token or more", lora.window, lora.window >= 1),
        ("rank must be 1 or more", lora.rank, lora.rank >= 1),
        ("targets must name linear maps such as q_proj", lora.targets, bool(lora.targets)),
        ("dropout must be in [0, 1)", lora.dropout, 0 <= lora.dropout < 1),
    ]


class Adapted(torch.nn.Module, Generic[S]):
    """A frozen base with something that is trained. Its tensors are those of `base`; its modules are its own."""

    kind: ClassVar[Any]  # of its settings
    files: ClassVar[tuple[str, ...]] = ("adapter_model.safetensors",)  # of its weights

    def __init__(self, base: Base, settings: S, exclude: str | None = None) -> None:
        """exclude: a regular expression for the names of maps that get no LoRA."""
        super().__init__()
        self.base, self.settings = base, settings
        self.body = _with_lora(base, settings, exclude)
        self.eval()

    @classmethod
    def create(cls: type[A], base: Base | str | os.PathLike[str], settings: S | None = None) -> A:
        """A new one, untrained."""
        return cls(_loaded(base), settings or cls.kind())

    @classmethod
    def load(
        cls: type[A],
        folder: str | os.PathLike[str],
        base: Base | str | os.PathLike[str] | None = None,
        window: int | None = None,
    ) -> A:
        """What `save` wrote. `base`: default the one it was trained on, by the name it had then.

        window: the longest text in tokens, to train it on others than before; its weights do not depend on it.
        """
        path = Path(folder)
        settings, card = settings_of(path, cls.kind), _card(path)
        if window is not None:
            settings = replace(settings, window=window)
        _check_files(path, card, cls.files)
        try:
            base = _loaded(base or card["base"])
            base.made.check(Binding(**card["made"]), f"the adapter {folder}", "train another")
        except (KeyError, TypeError) as error:
            raise _incomplete(path, error) from error
        adapted = cls(base, settings)
        adapted._take(path)
        return adapted

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write LoRA in PEFT's format, other weights and `soft.json`, which comes last and hashes the others.

        PEFT's own `PeftModel.from_pretrained(model, folder)` reads the folder too.
        """
        from safetensors.torch import save_file

        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target, prefix=".new-") as scratch:
            new = Path(scratch)
            for name, tensors in zip(self.files, self._weights(), strict=True):
                save_file({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, new / name, {"format": "pt"})
            self.body.peft_config["default"].save_pretrained(new)
            files = {p.name: sha256(p) for p in sorted(new.iterdir())}
            card = {
                "format": FORMAT,
                "base": self.base.name,
                "settings": asdict(self.settings),
                "made": asdict(self.base.made),
                "files": files,
            }
            (new / _CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
            for name in (*files, _CARD):
                os.replace(new / name, target / name)

    @property
    def made(self) -> Binding:
        """Fingerprints, with that of the trained weights as they are now."""
        own = {name: tensor for part in self._weights() for name, tensor in part.items()}
        return replace(self.base.made, adapter=fingerprint(own.items(), asdict(self.settings)))

    def trained(self) -> list[torch.nn.Parameter]:
        """What an optimiser gets, all float32."""
        return [p for p in self.parameters() if p.requires_grad]

    def recompute(self, on: bool = True) -> None:
        """Gradient checkpointing: less memory, the same gradients, a third more time."""
        recompute(self.body, on)

    def _weights(self) -> Parts:
        """All that is trained, by the names it has in each of `files`: LoRA's are PEFT's."""
        inside = _PREFIX + self.base.model.base_model_prefix + "."
        lora = {n: p for n, p in self.body.named_parameters() if p.requires_grad}
        return ({inside + name.replace(".default.", "."): p for name, p in lora.items()},)

    def _take(self, folder: Path) -> None:
        """The weights of a folder, every one of them."""
        from safetensors.torch import load_file

        own = {name: p for part in self._weights() for name, p in part.items()}
        found = {k: t for name in self.files for k, t in load_file(folder / name).items()}
        if wrong := sorted(own.keys() ^ found.keys()):
            raise ModelError(f"{folder} has other weights than {_CARD} says ({wrong[0]}); save it again")
        with torch.no_grad():
            for name, parameter in own.items():
                parameter.copy_(found[name])


def mode_of(folder: str | os.PathLike[str]) -> str:
    """What `Adapted.save` wrote there: "full", or the mode of an encoder."""
    return str(_card(Path(folder))["settings"].get("mode"))


def settings_of(folder: str | os.PathLike[str], kind: type[S]) -> S:
    """The settings of a folder; ModelError where it holds the other kind of adapter."""
    path = Path(folder)
    found = _card(path)["settings"]
    _check_mode(path, found.get("mode"), kind)
    try:
        return kind(**{**found, "targets": tuple(found["targets"])})
    except (KeyError, TypeError) as error:
        raise _incomplete(path, error) from error


def _with_lora(base: Base, settings: Lora, exclude: str | None) -> Any:
    """A body over the base's tensors, with LoRA in float32."""
    from peft import LoraConfig, inject_adapter_in_model

    body = base.shared_body()
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets),
        exclude_modules=exclude,
        task_type="CAUSAL_LM",
        base_model_name_or_path=base.name,
    )
    try:
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            inject_adapter_in_model(config, body)
    except ValueError as error:
        raise InputError(f"targets {settings.targets} do not fit {base.name} ({first_line(error)})") from error
    for parameter in body.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return body


def _loaded(base: Base | str | os.PathLike[str]) -> Base:
    return base if isinstance(base, Base) else Base.load(base)


def _check_mode(folder: Path, mode: object, kind: Any) -> None:
    """Is it of this kind of adapter?"""
    if mode == FULL != kind.mode:
        raise ModelError(
            f"{folder} holds LoRA for full contexts (mode {FULL!r}), no encoder of memories; pass one, or compare "
            "them: laconic soft measure"
        )
    if mode != FULL == kind.mode:
        raise ModelError(f"{folder} holds an encoder of memories (mode {mode!r}); SoftEncoder.load reads it")


def _card(folder: Path) -> dict[str, Any]:
    """What soft.json says."""
    try:
        card = json.loads((folder / _CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder} holds no soft encoder ({first_line(error)}); pass the folder of save()") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise ModelError(f"{folder / _CARD} is of another format than {FORMAT}; upgrade laconic, or save it again")
    if not isinstance(card.get("settings"), dict):
        raise _incomplete(folder, KeyError("settings"))
    return card


def _check_files(folder: Path, card: dict[str, Any], names: tuple[str, ...]) -> None:
    """Are the files beside the card the ones it names?"""
    try:
        wrong = [name for name in names if card["files"][name] != sha256(folder / name)]
    except OSError as error:
        raise ModelError(f"{folder} lacks what {_CARD} names ({first_line(error)}); fetch it again") from error
    except (KeyError, TypeError) as error:
        raise _incomplete(folder, error) from error
    if wrong:
        raise ModelError(f"{folder / wrong[0]} is not the file that {_CARD} names (SHA-256): fetch it again")


def _incomplete(folder: Path, error: Exception) -> ModelError:
    return ModelError(f"{folder / _CARD} is incomplete ({first_line(error)}); save it again")
