"""What the samples share: torch set up so that the same machine writes the same bytes, the training loop, and how an
adapter is saved. Works with transformers 4 and 5.
"""

from collections.abc import Callable
from pathlib import Path

import torch
import transformers

SAMPLES = Path(__file__).parents[1]
SEED = 20

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(2)
torch.use_deterministic_algorithms(True)
torch.manual_seed(SEED)


def fit(
    model: torch.nn.Module, rows: int, epochs: int, rate: float, loss_of: Callable[[torch.Tensor], torch.Tensor],
    size: int = 64, lengths: torch.Tensor | None = None,
) -> float:
    """Adam on batches of so many of the rows, the rate falling to nothing. Returns the last batch's loss.

    With lengths, rows of much the same length share a batch, so that little is padded.
    """
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=rate)
    steps = epochs * -(-rows // size)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1, end_factor=0.01, total_iters=steps)
    model.train()
    for _ in range(epochs):
        batches = torch.randperm(rows).split(size)
        if lengths is not None:
            batches = alike(torch.cat(batches), size, lengths)
        for batch in batches:
            loss = loss_of(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    return loss.item()


def alike(order: torch.Tensor, size: int, lengths: torch.Tensor) -> list[torch.Tensor]:
    """Batches of rows in a random order, sorted by length within every fifty batches."""
    batches = []
    for part in order.split(50 * size):
        batches += part[lengths[part].argsort(stable=True)].split(size)
    return [batches[i] for i in torch.randperm(len(batches))]


def save_adapter(model: torch.nn.Module, config: transformers.PretrainedConfig, folder: Path, base: str) -> None:
    """Saves an adapter as PEFT does, and beside it the config that names its labels. base is its base model's name."""
    saved = model.peft_config["default"]
    saved.base_model_name_or_path = base
    saved.target_modules = sorted(saved.target_modules)  # a set, in memory: its order differs from run to run
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink()
    config.save_pretrained(folder)
