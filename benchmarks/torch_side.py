"""A plain PyTorch trainer of ResNet-18, the other side of `scripts/bench.py`.

It does the work of a meljax step as an experienced PyTorch user would write it: the data set is
decoded, uint8 and on the device; channels last; masks for the whole batch at once; loss and
confusion matrix summed on the device. Gray images are repeated to three channels, as the ImageNet
weights need them.
"""

import sys

import torch
from protocol import CLASSES, serve, set_size
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the usual name

MEAN = torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)
MASK_WIDTH = 0.125


class Block(nn.Module):
    """A residual block of two 3 × 3 convolutions."""

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
        """Returns the block's feature maps."""
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


def mask(images: torch.Tensor) -> torch.Tensor:
    """Returns images with one frequency and one time mask each."""
    n, _, height, width = images.shape

    def bands(size: int) -> torch.Tensor:
        place = torch.arange(size, device=images.device)
        wide = (torch.rand(n, 1, device=images.device) * (int(MASK_WIDTH * size) + 1)).floor()
        start = (torch.rand(n, 1, device=images.device) * (size - wide + 1)).floor()
        return (place >= start) & (place < start + wide)

    masked = bands(height)[:, :, None] | bands(width)[:, None, :]
    return images.masked_fill(masked[:, None], 0.0)


class Side:
    """A network, its data and its optimizer, for one setting."""

    def __init__(self, batch: int, size: int, compute: str, mode: str):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(0)
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        self.batch, self.compute = batch, compute
        shape = (set_size(batch, self.device.type == "cuda"), 1, size, size)
        self.images = torch.randint(0, 256, shape, dtype=torch.uint8, device=self.device)
        self.labels = torch.randint(0, CLASSES, shape[:1], device=self.device)
        self.mean, self.std = MEAN.to(self.device), STD.to(self.device)
        network = ResNet18().to(self.device, memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=True)
        self.network = network
        if mode != "eager":
            self.network = torch.compile(network, mode=mode)
        self.loss = torch.zeros((), device=self.device)
        self.confusion = torch.zeros(CLASSES * CLASSES, device=self.device, dtype=torch.int64)

    def inputs(self, index: torch.Tensor, train: bool) -> torch.Tensor:
        """Returns normalized images of three channels."""
        images = self.images[index].float() / 255
        if train:
            images = mask(images)
        images = (images.expand(-1, 3, -1, -1) - self.mean) / self.std
        return images.contiguous(memory_format=torch.channels_last)

    def autocast(self) -> torch.autocast:
        """Returns a context in which the network computes in bfloat16, if that is the setting."""
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
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
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
        """Waits until everything is computed."""
        float(self.loss)


def prepare(what: str, batch: int, size: int, compute: str, mode: str) -> object:
    """Returns a function that takes a number of steps and waits for the end."""
    side = Side(batch, size, compute, mode)

    def run(steps: int) -> None:
        getattr(side, what)(steps)
        side.wait()

    return run


def device_mb() -> float | None:
    """Returns the peak memory of the GPU in MB."""
    return torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_available() else None


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    serve(prepare, {"torch": torch.__version__}, device_mb)
