"""A plain PyTorch trainer of ResNet-18, the other side of `scripts/bench.py`.

What meljax does in a step, as a practised PyTorch user would write it: the set decoded, uint8, on
the device; channels last; masks drawn for the whole batch at once; loss and confusion matrix summed
on the device. Grey pictures are repeated to three channels, as ImageNet's weights want them.
"""

import sys

import torch
from protocol import CLASSES, serve, set_size
from torch import nn
from torch.nn import functional as F  # noqa: N812 - as everybody calls it

MEAN = torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)
MASK_WIDTH = 0.125


class Block(nn.Module):
    """Two 3 × 3 convolutions, added to the input."""

    def __init__(self, before: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(before, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride > 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the block's maps."""
        residual = F.relu(self.bn1(self.conv1(x)), inplace=True)
        residual = self.bn2(self.conv2(residual))
        return F.relu(residual + (x if self.downsample is None else self.downsample(x)))


class ResNet18(nn.Module):
    """ResNet-18 (He et al. 2015)."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        blocks, before = [], 64
        for layer in range(4):
            for block in range(2):
                channels = 64 * 2**layer
                blocks.append(Block(before, channels, 2 if layer and not block else 1))
                before = channels
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(512, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the logits."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.blocks(F.max_pool2d(x, 3, 2, 1))
        return self.fc(x.mean((2, 3)))


def mask(pictures: torch.Tensor) -> torch.Tensor:
    """Returns pictures with one frequency and one time mask each."""
    n, _, height, width = pictures.shape

    def bands(size: int) -> torch.Tensor:
        place = torch.arange(size, device=pictures.device)
        wide = (torch.rand(n, 1, device=pictures.device) * (int(MASK_WIDTH * size) + 1)).floor()
        start = (torch.rand(n, 1, device=pictures.device) * (size - wide + 1)).floor()
        return (place >= start) & (place < start + wide)

    masked = bands(height)[:, :, None] | bands(width)[:, None, :]
    return pictures.masked_fill(masked[:, None], 0.0)


class Side:
    """A network, its data and its optimiser, for one setting."""

    def __init__(self, batch: int, size: int, compute: str, mode: str):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(0)
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        self.batch, self.compute = batch, compute
        shape = (set_size(batch, self.device.type == "cuda"), 1, size, size)
        self.pictures = torch.randint(0, 256, shape, dtype=torch.uint8, device=self.device)
        self.labels = torch.randint(0, CLASSES, shape[:1], device=self.device)
        self.mean, self.std = MEAN.to(self.device), STD.to(self.device)
        network = ResNet18().to(self.device, memory_format=torch.channels_last)
        self.optimiser = torch.optim.Adam(network.parameters(), lr=1e-4, fused=True)
        self.network = network
        if mode != "eager":
            self.network = torch.compile(network, mode=mode)
        self.loss = torch.zeros((), device=self.device)
        self.confusion = torch.zeros(CLASSES * CLASSES, device=self.device, dtype=torch.int64)

    def inputs(self, index: torch.Tensor, train: bool) -> torch.Tensor:
        """Returns normalised pictures of three channels."""
        pictures = self.pictures[index].float() / 255
        if train:
            pictures = mask(pictures)
        pictures = (pictures.expand(-1, 3, -1, -1) - self.mean) / self.std
        return pictures.contiguous(memory_format=torch.channels_last)

    def autocast(self) -> torch.autocast:
        """Returns what lets the network compute in bfloat16, if that is wanted."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.compute == "bfloat16")

    def train(self, steps: int) -> None:
        """Takes some steps."""
        self.network.train()
        order = torch.randperm(len(self.labels), device=self.device)
        for step in range(steps):
            torch.compiler.cudagraph_mark_step_begin()
            first = step * self.batch % (len(order) - self.batch + 1)
            index = order[first : first + self.batch]
            labels = self.labels[index]
            with self.autocast():
                logits = self.network(self.inputs(index, train=True))
            loss = F.cross_entropy(logits.float(), labels)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self.optimiser.step()
            self.loss += loss.detach()
            pairs = labels * CLASSES + logits.detach().argmax(1)
            self.confusion += torch.bincount(pairs, minlength=CLASSES * CLASSES)

    @torch.no_grad()
    def forward(self, steps: int) -> None:
        """Computes the logits of whole batches, without masks."""
        self.network.eval()
        index = torch.arange(self.batch, device=self.device)
        for _ in range(steps):
            with self.autocast():
                self.loss = self.network(self.inputs(index, train=False)).float().sum()

    def wait(self) -> None:
        """Waits until all is computed."""
        float(self.loss)


def prepare(what: str, batch: int, size: int, compute: str, mode: str) -> object:
    """Returns a function of a number of steps that takes them and waits for the end."""
    side = Side(batch, size, compute, mode)

    def run(steps: int) -> None:
        getattr(side, what)(steps)
        side.wait()

    return run


def device_mb() -> float | None:
    """Returns the most memory that was taken of a GPU, in MB."""
    return torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_available() else None


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    serve(prepare, {"torch": torch.__version__}, device_mb)
