"""Counts the kernels of a training step of ResNet-18, compiled for a real or a described GPU.

    python benchmarks/kernels.py [--target FILE] [--batch 12] [--size 224] [--compute bfloat16]

Without `--target`, the program is compiled for the GPU of this machine. With it, neither a GPU nor
a driver is needed, only `pip install 'jax[cuda12]'`. FILE describes a GPU: it is XLA's
`GpuTargetConfigProto` as text. XLA's repository has files for common GPUs in
`xla/backends/gpu/target_config/specs`. Autotuning needs the GPU and is then off.
"""

import argparse
import os
import re
import sys
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import meljax_side  # noqa: F401 - makes meljax importable
import numpy as np
from jax.experimental import topologies
from protocol import CLASSES, set_size

from meljax.config import MaskConfig, MelConfig, TrainConfig
from meljax.data.batches import make_device_set
from meljax.features.frontend import Frontend
from meljax.models.resnet import ResNet18
from meljax.training.state import Task, abstract_state, make_optimizer
from meljax.training.step import train_steps
from meljax.util.devices import make_mesh, replicated

NOT_KERNELS = {"", "parameter", "tuple", "get-tuple-element", "bitcast", "constant"}
INSTRUCTION = re.compile(r" = (?:\([^=]*?\)|\S+) ([\w\-]+)\(")


def compiled(batch: int, size: int, compute: str, device: jax.Device) -> str:
    """Returns the compiled program of many steps, as HLO text."""
    mesh, items = make_mesh([device]), set_size(batch, accelerator=True)
    frontend = Frontend("image", size, size, 1, size, MelConfig())
    optimizer = make_optimizer(TrainConfig(batch_size=batch), items)
    classes = tuple(map(str, range(CLASSES)))
    network = ResNet18(CLASSES, dtype=compute)
    task = Task(network, frontend, MaskConfig(), optimizer, classes, mesh)

    def shape_of(x: jax.Array) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated(mesh))

    images = [np.zeros((size, size, 1), np.uint8)] * items
    place = replicated(make_mesh(jax.devices("cpu")[:1]))
    data = make_device_set(images, np.zeros(items, int), size, place)
    order = jnp.zeros((items // batch, batch), jnp.int32)
    arguments = jax.tree.map(shape_of, (data, order, jax.random.key(0), jnp.int32(0)))
    function = jax.jit(train_steps.__wrapped__, static_argnums=0, donate_argnums=1)
    return function.lower(task, abstract_state(task), *arguments).compile().as_text()


def kernels(program: str) -> Counter[str]:
    """Returns the number of kernels of each kind in the body of the program's loop."""
    computations: dict[str, list[str]] = {}
    for line in program.splitlines():
        if head := re.match(r"(?:ENTRY )?%?([\w.\-]+) .*\{$", line):
            current = computations.setdefault(head[1], [])
        elif line.startswith("  "):
            current.append(line)
    found: Counter[str] = Counter()
    left = [re.search(r"body=%?([\w.\-]+)", program)[1]]
    while left:
        for line in computations[left.pop()]:
            instruction = INSTRUCTION.search(line)
            operation = instruction[1] if instruction else ""  # not an instruction
            if operation == "call":
                left.append(re.search(r"to_apply=%?([\w.\-]+)", line)[1])
            elif operation not in NOT_KERNELS:
                found[kind(operation, line)] += 1
    return found


def kind(operation: str, line: str) -> str:
    """Returns the kind of an instruction's kernel."""
    if operation == "custom-call":
        return re.search(r'custom_call_target="([^"]+)"', line)[1]
    if operation != "fusion":
        return operation
    name = re.search(r"%?([a-z_\-]+)[\d.]* =", line)[1]
    return "reduction" if "reduce" in name else "matrix product" if "gemm" in name else "fusion"


def main() -> int:
    """Prints the number of kernels of each kind."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", type=Path, metavar="FILE", help="description of a GPU")
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--compute", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument(
        "--hlo", type=Path, metavar="FILE", help="write the compiled program to FILE"
    )
    arguments = parser.parse_args()
    device = described(arguments.target) if arguments.target else jax.devices()[0]
    if not arguments.target and device.platform != "gpu":
        raise SystemExit("no GPU here; give --target FILE, see --help")
    program = compiled(arguments.batch, arguments.size, arguments.compute, device)
    if arguments.hlo:
        arguments.hlo.write_text(program)
    found = kernels(program)
    for name, number in found.most_common():
        print(f"{number:5} {name}")
    print(f"{found.total():5} in all")
    return 0


def described(target: Path) -> jax.Device:
    """Returns the described device, for which programs can be compiled but not run."""
    jax.config.update("jax_platforms", "cpu")
    # Tuning needs the GPU.
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_autotune_level=0"
    described = topologies.get_topology_desc(
        platform="cuda", target_config=target.read_text(), topology="1x1x1"
    )
    return described.devices[0]


if __name__ == "__main__":
    sys.exit(main())
