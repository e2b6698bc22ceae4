"""PyTorch's part of what the benchmark times (extra `bench`); the data are float tensors from the start."""

import numpy as np
import torch
from torch import nn

import jaxmnist as jm

from . import peers

# Each batch size of a sweep is compiled; by default, a function gives up after eight shapes.
torch._dynamo.config.recompile_limit = 64


def can_compile() -> bool:
    """Returns whether `torch.compile` works here; it needs a C++ compiler, and says what is missing."""
    try:
        torch.compile(lambda numbers: numbers.sin().sum())(torch.ones(2))
    except Exception as error:  # Whatever its compiler ran into.
        print(f"left out: torch.compile ({str(error).strip().splitlines()[0]})")
        return False
    return True


def _tensors(split: jm.Split):
    return torch.from_numpy(split.inputs).permute(0, 3, 1, 2).float() / 255, torch.from_numpy(split.targets).long()


def eager_loop(dataset: jm.Dataset, runs: dict, num_steps: int) -> peers.Peer:
    """Returns one model, optimizer and Python loop for each cell."""
    images, labels = (each.flatten(1) if each.ndim > 1 else each for each in _tensors(dataset.train))
    test_images, test_labels = (each.flatten(1) if each.ndim > 1 else each for each in _tensors(dataset.test))

    def train_all():
        trained = []
        for rate, batch_size, seed in peers.cells(runs):
            order = torch.from_numpy(jm.example_order(len(labels), seed, num_steps * batch_size)).long()
            model = nn.Linear(images.shape[1], len(dataset.class_names))
            nn.init.zeros_(model.weight)
            nn.init.zeros_(model.bias)
            optimizer = torch.optim.SGD(model.parameters(), lr=rate)
            for rows in order.split(batch_size):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
                optimizer.step()
            trained.append(model)
        return trained

    def evaluate(trained):
        with torch.no_grad():
            return np.array([(model(test_images).argmax(1) == test_labels).float().mean().item() for model in trained])

    return peers.Peer("PyTorch, eager loop", train_all, evaluate)


def ensemble(dataset: jm.Dataset, runs: dict, num_steps: int, padded=False, compiled=False) -> peers.Peer:
    """Returns runs that share their batches as one product, their gradient written by hand.

    Args:
      dataset: what to train on.
      runs: all learning rates for each batch size and seed.
      num_steps: training steps.
      padded: whether all batch sizes train at once, padded to the largest, in place of one after another.
      compiled: whether `torch.compile` compiles the step, once for each batch size.
    """
    num_classes = len(dataset.class_names)
    images, labels = (each.flatten(1) if each.ndim > 1 else each for each in _tensors(dataset.train))
    one_hot = nn.functional.one_hot(labels, num_classes).float()
    test_images, test_labels = (each.flatten(1) if each.ndim > 1 else each for each in _tensors(dataset.test))
    rates = torch.tensor(np.unique(runs["learning_rate"]), dtype=torch.float32)
    streams = sorted({(batch_size, seed) for _, batch_size, seed in peers.cells(runs)})
    together = (
        [streams] if padded else [[s for s in streams if s[0] == size] for size in sorted({s[0] for s in streams})]
    )

    def step(pixels, answers, kernel, bias, scale):
        logits = torch.baddbmm(bias, pixels, kernel).unflatten(2, (len(rates), num_classes))
        errors = logits.softmax(-1).sub_(answers[:, :, None]).mul_(scale).flatten(2)
        kernel.baddbmm_(pixels.transpose(1, 2), errors, alpha=-1)
        bias.sub_(errors.sum(1, keepdim=True))

    if compiled:
        step = torch.compile(step, dynamic=False)

    def train_streams(group):
        largest = max(batch_size for batch_size, _ in group)
        rows = np.zeros((len(group), num_steps, largest), np.int64)
        weights = torch.zeros(len(group), largest, 1, 1)
        for index, (batch_size, seed) in enumerate(group):
            order = jm.example_order(len(labels), seed, num_steps * batch_size)
            rows[index, :, :batch_size] = order.reshape(num_steps, batch_size)
            weights[index, :batch_size] = 1 / batch_size
        steps = torch.from_numpy(rows).transpose(0, 1)
        kernel = torch.zeros(len(group), images.shape[1], len(rates) * num_classes)
        bias = torch.zeros(len(group), 1, len(rates) * num_classes)
        scale = (weights * rates[:, None]).expand(-1, -1, -1, num_classes)
        for batch in steps:
            step(images[batch], one_hot[batch], kernel, bias, scale)
        return group, kernel, bias

    def train_all():
        with torch.no_grad():
            return [train_streams(group) for group in together]

    def evaluate(trained):
        accuracies: dict[tuple, float] = {}
        with torch.no_grad():
            for group, kernel, bias in trained:
                for stream, of_kernel, of_bias in zip(group, kernel, bias, strict=True):
                    logits = torch.addmm(of_bias, test_images, of_kernel).unflatten(1, (len(rates), num_classes))
                    right = (logits.argmax(-1) == test_labels[:, None]).float().mean(0)
                    accuracies |= {
                        (rate, *stream): value for rate, value in zip(rates.tolist(), right.tolist(), strict=True)
                    }
        return np.array([accuracies[float(np.float32(rate)), size, seed] for rate, size, seed in peers.cells(runs)])

    kind = (", padded" if padded else "") + (", torch.compile" if compiled else "")
    return peers.Peer(f"PyTorch, one product a step{kind}", train_all, evaluate)


def cnn(dataset: jm.Dataset, test: jm.Split, num_steps: int, channels_last: bool, fused: bool) -> peers.Peer:
    """Returns the original CNN, whose training is continued at each call."""
    images, labels = _tensors(dataset.train)
    test_images, test_labels = _tensors(test)
    side = dataset.train.inputs.shape[1] // 4
    layers = (
        *(nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(64 * side * side, 1024), nn.ReLU(), nn.Dropout(0.5)),
        nn.Linear(1024, len(dataset.class_names)),
    )
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    model = nn.Sequential(*layers).to(memory_format=memory_format)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=fused)
    order = torch.from_numpy(jm.example_order(len(labels), 0, num_steps * peers.CNN_BATCH_SIZE)).long()

    def go_on():
        model.train()
        for rows in order.split(peers.CNN_BATCH_SIZE):
            batch = images[rows].contiguous(memory_format=memory_format)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batch), labels[rows]).backward()
            optimizer.step()

    def evaluate(_):
        model.eval()
        with torch.no_grad():
            batches = zip(test_images.split(500), test_labels.split(500), strict=True)
            right = [
                (model(batch.contiguous(memory_format=memory_format)).argmax(1) == answers).sum().item()
                for batch, answers in batches
            ]
        return sum(right) / len(test_labels)

    kind = ", ".join(["channels last" if channels_last else "eager", *(["fused Adam"] if fused else [])])
    return peers.Peer(f"PyTorch, {kind}", go_on, evaluate)
