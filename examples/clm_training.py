"""Fine-tuning that can be interrupted, for run_clm.py."""

import argparse
import logging
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from fairseq_knn.errors import ConfigurationError
from fairseq_knn.storage.atomic import atomic_path, make_directory, read_json, write_json

logger = logging.getLogger("run_clm")


class Training:
    """Optimiser and what tells how far it is, on disk after every epoch.

    Args:
        model: that is trained.
        args: the options.
        batches_per_epoch: how many.

    Attributes:
        losses: on the validation text, in nats, of every epoch.
    """

    def __init__(self, model: Any, args: argparse.Namespace, batches_per_epoch: int) -> None:
        self._model, self._folder = model, Path(args.output_dir)
        make_directory(self._folder)
        self._optimiser = torch.optim.AdamW(model.parameters(), args.learning_rate, weight_decay=args.weight_decay)
        self._rate, self._batches = args.learning_rate, batches_per_epoch * args.num_train_epochs
        self._done, self._every = 0, args.gradient_accumulation_steps
        self._overwrite = args.overwrite_output_dir
        self._settings = {"learning_rate": args.learning_rate, "epochs": args.num_train_epochs, "seed": args.seed}
        self.losses: list[float] = []

    def update(self, batch: dict[str, Tensor]) -> None:
        """One batch."""
        device = self._model.device
        loss = self._model(**{name: tensor.to(device) for name, tensor in batch.items()}).loss
        (loss / self._every).backward()
        self._done += 1
        if self._done % self._every == 0:
            for group in self._optimiser.param_groups:
                group["lr"] = self._rate * (1 - self._done / (self._batches + 1))
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
            self._optimiser.step()
            self._optimiser.zero_grad()

    def finish_epoch(self, epoch: int, loss: float) -> bool:
        """Note its validation loss and write the state; whether it is the best so far."""
        self.losses.append(loss)
        state = self._optimiser.state_dict()["state"]
        tensors = {f"optimiser.{i}.{name}": value for i, values in state.items() for name, value in values.items()}
        parameters = {f"model.{name}": value.detach().clone() for name, value in self._model.named_parameters()}
        with atomic_path(self._folder / "training.safetensors") as temporary:
            temporary.write_bytes(safetensors.torch.save({**tensors, **parameters}))
        write_json(
            self._folder / "training.json",
            {"settings": self._settings, "epochs": epoch + 1, "batches": self._done, "losses": self.losses},
        )
        return loss == min(self.losses)

    def resume(self) -> int:
        """The first epoch that is to come.

        Raises:
            ConfigurationError: the directory holds a training with other settings.
        """
        try:
            done = read_json(self._folder / "training.json")
        except FileNotFoundError:
            return 0
        if self._overwrite:
            return 0
        if done["settings"] != self._settings:
            raise ConfigurationError(
                f"{self._folder} holds a training with other settings ({done['settings']} against {self._settings}): "
                "choose another --output_dir, or pass --overwrite_output_dir"
            )
        content = safetensors.torch.load_file(self._folder / "training.safetensors")
        parameters = dict(self._model.named_parameters())
        with torch.no_grad():
            for name, value in parameters.items():
                value.copy_(content[f"model.{name}"])
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in content.items():
            kind, _, rest = name.partition(".")
            if kind == "optimiser":
                number, _, part = rest.partition(".")
                state.setdefault(int(number), {})[part] = value
        self._optimiser.load_state_dict({**self._optimiser.state_dict(), "state": state})
        self._done, self.losses = done["batches"], done["losses"]
        logger.info(f"{done['epochs']} epochs are done already")
        return int(done["epochs"])

    def without_progress(self, patience: int | None) -> bool:
        """Whether the last epochs, so many, were not better than those before."""
        return patience is not None and len(self.losses) - 1 - int(np.argmin(self.losses)) >= patience
