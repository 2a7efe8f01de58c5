"""A plain PyTorch trainer of ResNet-18, the other side of `scripts/bench.py`.

It does the work of a meljax step, except the check for infinite and NaN values, as an experienced
PyTorch user would write it: the data set is decoded, uint8 and on the device; channels last; masks
for the whole batch at once; loss and confusion matrix summed on the device, which never waits for
the host. Gray images are repeated to three channels, as the ImageNet weights need them.
"""

import sys
from collections.abc import Callable

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
        cuda = self.device.type == "cuda"
        if mode == "graph" and not cuda:
            raise SystemExit("CUDA graphs need a GPU")
        if cuda:
            torch.backends.cudnn.benchmark = True
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        self.compute, self.mode = compute, mode
        shape = (set_size(batch, cuda), 1, size, size)
        self.images = torch.randint(0, 256, shape, dtype=torch.uint8, device=self.device)
        self.labels = torch.randint(0, CLASSES, shape[:1], device=self.device)
        self.mean, self.std = MEAN.to(self.device), STD.to(self.device)
        network = ResNet18().to(self.device, memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(
            network.parameters(), lr=1e-4, fused=True, capturable=cuda
        )
        self.network = network
        if mode not in ("eager", "graph"):
            self.network = torch.compile(network, mode=mode)
        self.loss = torch.zeros((), device=self.device)
        self.confusion = torch.zeros(CLASSES * CLASSES, device=self.device, dtype=torch.int64)
        self.ones = torch.ones(batch, device=self.device, dtype=torch.int64)
        self.batches = torch.arange(len(self.labels), device=self.device).reshape(-1, batch)
        self.index = self.batches[0].clone()

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

    def runner(self, what: str) -> Callable[[int], None]:
        """Returns a function that takes a number of steps of 'train' or 'forward'."""
        self.network.train(what == "train")
        take = {"train": self.train_step, "forward": self.forward_step}[what]
        step = captured(take) if self.mode == "graph" else take

        def run(steps: int) -> None:
            order = self.batches[torch.randperm(len(self.batches), device=self.device)]
            for number in range(steps):
                torch.compiler.cudagraph_mark_step_begin()
                self.index.copy_(order[number % len(order)])
                step()
            float(self.loss)  # waits until everything is computed

        return run

    def train_step(self) -> None:
        """Takes a step on the items `self.index`."""
        labels = self.labels[self.index]
        with self.autocast():
            logits = self.network(self.inputs(self.index, train=True))
        loss = F.cross_entropy(logits.float(), labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.loss += loss.detach()
        pairs = labels * CLASSES + logits.detach().argmax(1)
        self.confusion.index_add_(0, pairs, self.ones)

    @torch.no_grad()
    def forward_step(self) -> None:
        """Computes the logits of the items `self.index`, without masks."""
        with self.autocast():
            logits = self.network(self.inputs(self.index, train=False))
        self.loss += logits.float().sum()


def captured(step: Callable[[], None]) -> Callable[[], None]:
    """Returns a function that repeats `step` as one CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # cuDNN chooses its algorithms before the capture
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def prepare(what: str, batch: int, size: int, compute: str, mode: str) -> Callable[[int], None]:
    """Returns a function that takes a number of steps and waits for the end."""
    return Side(batch, size, compute, mode).runner(what)


def device_mb() -> float | None:
    """Returns the peak memory of the GPU in MB."""
    return torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_available() else None


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    versions = {"torch": torch.__version__, "cudnn": torch.backends.cudnn.version()}
    serve(prepare, versions, device_mb)
