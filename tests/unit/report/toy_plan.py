"""A plan made by hand: four layers of two products on a 2 x 2 mesh, and a simulated step."""

from dataclasses import replace

from weft.core.provenance import ported
from weft.core.records import Record
from weft.cost.timeline import Event, MemoryPoint, Stream, Timeline
from weft.machine.model import Device, Link, Machine, NodeGroup
from weft.parallel.placement import Mesh
from weft.parallel.plan import Alternative, ParallelPlan, Prediction, Strategy
from weft.program.graph import Input, Node, Program, Role, Value
from weft.program.types import DType, TensorType

NUM_LAYERS = 4
B, D, F = 8, 16, 64


def machine():
    def figure(value, unit):
        return ported(value, unit, "a data sheet")

    device = Device(
        name="toy-gpu",
        kind="cuda",
        matmul_flops_per_s={"f32": figure(1e12, "FLOP/s")},
        vector_flops_per_s=figure(1e11, "FLOP/s"),
        memory_bytes=figure(2.0**30, "B"),
        memory_bytes_per_s=figure(1e11, "B/s"),
        launch_s=figure(1e-6, "s"),
    )
    link = Link(bytes_per_s=figure(1e10, "B/s"), latency_s=figure(1e-6, "s"))
    group = NodeGroup(device=device, devices_per_node=2, num_nodes=2, link=link)
    return Machine(name="toy-box", groups=(group,), network=link, overlap=figure(1.0, "share"))


class _Draft:
    def __init__(self):
        self.nodes, self.inputs, self.strategies = [], [], []

    def add(self, op, args, shape, made, read, scope="", dtype=DType.F32):
        node = Node(op=op, args=args, outputs=(TensorType(dtype, shape),), scope=scope)
        self.nodes.append(node)
        self.strategies.append(Strategy((made,), read))
        return Value(len(self.nodes) - 1)

    def input(self, name, role, shape, made):
        value = self.add("input", (name,), shape, made, ())
        self.inputs.append(Input(name=name, role=role, node=value.node))
        return value


def draft(odd_layer=-1):
    """The program and its strategies; `odd_layer` keeps its first weight whole."""
    d = _Draft()
    x = d.input("batch.x", Role.BATCH, (B, D), (0, -1))
    for layer in range(NUM_LAYERS):
        kept = (-1, -1) if layer == odd_layer else (1, 0)
        up = d.input(f"layers.{layer}.up", Role.PARAMETER, (F, D), kept)
        down = d.input(f"layers.{layer}.down", Role.PARAMETER, (D, F), (0, 1))
        half = d.add("cast", (up, "bf16"), (F, D), (-1, 0), ((-1, 0),), dtype=DType.BF16)
        operands = ((0, -1), (-1, 0))
        scope = f"layers.{layer}"
        h = d.add("einsum", ("bd,fd->bf", x, half), (B, F), (0, 1), operands, scope + ".up")
        operands = ((0, 1), (-1, 1))
        x = d.add("einsum", ("bf,df->bd", h, down), (B, D), (0, -2), operands, scope + ".down")
    loss = d.add("sum", (x, (0, 1), False), (), (-2, -2), ((0, -1),))
    program = Program(name="toy", nodes=tuple(d.nodes), inputs=tuple(d.inputs), loss=loss)
    return program, tuple(d.strategies)


def timeline():
    def event(stream, kind, phase, start_s, duration_s):
        return Event(
            stream=stream,
            kind=kind,
            label=f"{kind} of layer 0",
            phase=phase,
            node=1,
            start_s=start_s,
            duration_s=duration_s,
        )

    events = (
        event(Stream.COMPUTE, "einsum", "forward", 0.0, 2e-3),
        event(Stream.COMMUNICATION, "all-gather", "forward", 1e-3, 2e-3),
        event(Stream.COMPUTE, "einsum", "backward", 3e-3, 4e-3),
        event(Stream.COMMUNICATION, "reduce-scatter", "backward", 6e-3, 2e-3),
        event(Stream.COMPUTE, "add.Tensor", "update", 8e-3, 1e-3),
    )
    memory = (MemoryPoint(0.0, 100e6), MemoryPoint(3e-3, 700e6), MemoryPoint(8e-3, 200e6))
    return Timeline(events=events, memory=memory, step_s=9e-3, exposed_s=2e-3)


def plan(odd_layer=-1):
    program, strategies = draft(odd_layer)
    where = machine()
    return ParallelPlan(
        program_name=program.name,
        program_digest=program.digest,
        machine_name=where.name,
        machine_digest=where.digest,
        mesh=Mesh((2, 2)),
        strategies=strategies,
        copies=(),
        memory_limit_bytes=2.0**30,
        prediction=Prediction(
            step_s=9e-3,
            compute_s=7e-3,
            communication_s=4e-3,
            exposed_s=2e-3,
            peak_bytes=700e6,
            state_bytes=100e6,
            objective_s=1.02,
            bound_s=1.0,
        ),
        alternatives=(
            Alternative(name="data 4", step_s=8e-3, peak_bytes=2e9, fits=False, note="too large"),
            Alternative(name="tensor 4", step_s=18e-3, peak_bytes=3e8, fits=True),
        ),
        notes=("cumsum is replicated",),
    )


def step_records(step_s=10e-3, count=5):
    return tuple(
        Record(kind="step", fields={"step": n, "step_s": step_s, "loss": 3.0 - n}, time_s=0.0)
        for n in range(count)
    )


def changed(program):
    """The program with its last node changed: another program, with another digest."""
    last = program.nodes[-1]
    other = replace(last, args=(last.args[0], (1, 0), False))
    return replace(program, nodes=(*program.nodes[:-1], other))
