"""Makes the references of test_pretrained.py with PyTorch 2.13. Run in this folder:

    python make_torch.py

tiny_resnet18.pth, tiny_resnet18_legacy.pth: random weights of a narrow ResNet-18 under
torchvision's names, in both of PyTorch's formats. tiny_resnet18.npz: what PyTorch computes from
them.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Block(nn.Module):
    """Two 3 × 3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride > 1:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x):
        """Returns the block's output."""
        residual = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu((self.downsample(x) if self.downsample else x) + residual)


class ResNet18(nn.Module):
    """torchvision's structure and names, with `width` channels in the stem."""

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        for n in range(4):
            inputs, outputs = width * 2 ** max(n - 1, 0), width * 2**n
            blocks = Block(inputs, outputs, 1 + (n > 0)), Block(outputs, outputs, 1)
            setattr(self, f"layer{n + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(width * 8, classes)

    def forward(self, x):
        """Returns logits and the activations on the way."""
        seen = [functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, 1)]
        for n in range(4):
            seen.append(getattr(self, f"layer{n + 1}")(seen[-1]))
        return self.fc(seen[-1].mean((2, 3))), seen


def main() -> None:
    """Writes weights, activations, and what one training step does to the running statistics."""
    torch.manual_seed(0)
    # With oneDNN, PyTorch 2.13's gradient of the small strided 1 × 1 kernels is wrong on a CPU: it
    # is far from finite differences, which agree with the plain implementation.
    torch.backends.mkldnn.enabled = False
    network = ResNet18(width=4, classes=6)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if "running_mean" in name:
                tensor.normal_(0, 0.2)
            elif "running_var" in name or ("bn" in name and name.endswith("weight")):
                tensor.uniform_(0.5, 1.5)
            elif "num_batches" in name:
                tensor.fill_(7)
    torch.save(network.state_dict(), "tiny_resnet18.pth")
    torch.save(
        network.state_dict(), "tiny_resnet18_legacy.pth", _use_new_zipfile_serialization=False
    )
    images = np.random.default_rng(0).integers(0, 256, (4, 45, 38, 3), dtype=np.uint8)
    labels = torch.tensor([0, 5, 2, 2])
    mean, std = (torch.tensor(x).reshape(1, 3, 1, 1) for x in (MEAN, STD))
    inputs = (torch.tensor(images).permute(0, 3, 1, 2) / 255 - mean) / std
    logits, seen = network.eval()(inputs)
    arrays = {"images": images, "labels": labels.numpy(), "logits": logits.detach().numpy()}
    for name, activation in zip(
        ["stem", "layer1", "layer2", "layer3", "layer4"], seen, strict=True
    ):
        arrays[name] = activation.detach().permute(0, 2, 3, 1).numpy()
    functional.cross_entropy(network.train()(inputs)[0], labels).backward()
    for name, parameter in network.named_parameters():
        if name in ("conv1.weight", "layer2.0.downsample.0.weight", "fc.weight"):
            arrays[f"gradient:{name}"] = parameter.grad.numpy()
    for name, tensor in network.state_dict().items():
        if "running" in name:
            arrays[f"after:{name}"] = tensor.numpy()
    np.savez_compressed("tiny_resnet18.npz", **arrays)


if __name__ == "__main__":
    main()
