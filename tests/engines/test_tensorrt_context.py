"""What is asked of TensorRT's runtime, of a likeness of it; that the library has it by these names is looked up."""

from __future__ import annotations

import ast
import inspect
from types import SimpleNamespace

import pytest
from hostdevice import HostDevice

from videosr.engines import tensorrt_context
from videosr.engines.tensorrt_builder import Port
from videosr.engines.tensorrt_context import LoadedEngine
from videosr.errors import EngineError


class Context:
    """An execution context, as the second one of an engine for many sizes: without a profile."""

    def __init__(self, profile: int, *, takes: bool = True) -> None:
        self.active_optimization_profile, self.takes = profile, takes
        self.said: list[tuple] = []

    def set_optimization_profile_async(self, profile, stream):
        self.active_optimization_profile = profile
        self.said.append(("profile", profile))
        return self.takes

    def set_input_shape(self, name, shape):
        self.said.append((name, shape))
        return self.active_optimization_profile >= 0

    def update_device_memory_size_for_shapes(self):
        return 1000

    def set_device_memory(self, address, size):
        self.said.append(("memory", address, size))


def library(contexts, learned=b"kernels"):
    """TensorRT-RTX whose engines make these contexts."""
    cache = SimpleNamespace(serialize=lambda: learned, deserialize=lambda data: True)
    config = SimpleNamespace(
        create_runtime_cache=lambda: cache,
        set_runtime_cache=lambda made: True,
        set_execution_context_allocation_strategy=lambda strategy: None,
    )
    engine = SimpleNamespace(
        create_runtime_config=lambda: config, create_execution_context=lambda config: contexts.pop(0)
    )
    trt = SimpleNamespace(
        Runtime=lambda logger: SimpleNamespace(deserialize_cuda_engine=lambda plan: engine if plan else None),
        DynamicShapesKernelSpecializationStrategy=SimpleNamespace(EAGER=1),
        CudaGraphStrategy=SimpleNamespace(DISABLED=0),
        ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED=2),
    )
    return SimpleNamespace(name="tensorrt_rtx", rtx=True, trt=trt, logger=None, problem=lambda: "a reason")


def loaded(contexts, plan=b"plan"):
    definition = SimpleNamespace(library=library(contexts), inputs=(Port("input", 3, "float32"),))
    return LoadedEngine(definition, plan)


def test_every_context_of_an_engine_has_a_profile_before_its_shapes_are_set():
    device, first, second = HostDevice(), Context(0), Context(-1)
    engine = loaded([first, second])
    engine.context(device, (48, 64))
    engine.context(device, (48, 64))
    assert [said[0] for said in first.said] == ["input", "memory"]
    assert [said[0] for said in second.said] == ["profile", "input", "memory"]
    assert second.said[1] == ("input", (1, 3, 48, 64))
    assert second.said[2][1] in device.arrays  # memory of its own, of the size that was asked for
    assert second.said[2][2] == 1000
    assert engine.learned() == b"kernels"


def test_refusals_are_one_line_with_the_library_s_reason():
    with pytest.raises(EngineError, match="cannot load the engine: a reason"):
        loaded([], b"")
    with pytest.raises(EngineError, match="cannot run the engine twice at once: a reason"):
        loaded([Context(-1, takes=False)]).context(HostDevice(), (48, 64))
    with pytest.raises(EngineError, match="cannot make an execution context: a reason"):
        loaded([None]).context(HostDevice(), (48, 64))


def test_the_library_has_what_it_is_asked_for():
    trt = pytest.importorskip("tensorrt_rtx")
    owners = {
        "_engine": trt.ICudaEngine,
        "_config": trt.IRuntimeConfig,
        "_kernels": trt.IRuntimeCache,
        "made": trt.IExecutionContext,
        "_made": trt.IExecutionContext,
        "_runtime": trt.Runtime,
    }
    asked = 0
    for node in ast.walk(ast.parse(inspect.getsource(tensorrt_context))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute | ast.Name):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else node.value.id
            if owner in owners:
                assert hasattr(owners[owner], node.attr), f"{owners[owner].__name__}.{node.attr}"
                asked += 1
    assert asked > 12
