"""What only a CUDA device can show; run by ``pytest -m gpu`` where there is one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import accelerated

pytestmark = pytest.mark.gpu


def test_smoothing_on_the_device_meets_the_bound() -> None:
    import torch

    from dvaepp.smoothing import OverlappingExponential
    from validation.accuracy import mixed_errors
    from validation.tolerances import TRANSFORM_MIXED_ERROR

    rng = np.random.default_rng(0)
    beta = np.exp(rng.uniform(np.log(1e-2), np.log(1e3), 500))
    for dtype in (np.float32, np.float64):
        rho, logit_q, b = (values.astype(dtype) for values in (rng.random(500), rng.normal(0, 10, 500), beta))
        noise, logits = (torch.from_numpy(values).cuda().requires_grad_() for values in (rho, logit_q))
        zeta = OverlappingExponential(torch.from_numpy(b).cuda()).inverse_cdf(noise, logits)
        by_rho, by_logit = torch.autograd.grad(zeta.sum(), (noise, logits))
        results = {"zeta": zeta, "dzeta_drho": by_rho, "dzeta_dlogit_q": by_logit}
        worst = mixed_errors({name: x.detach().cpu().numpy() for name, x in results.items()}, rho, logit_q, b)
        for case in worst.values():
            assert case.mixed_error <= TRANSFORM_MIXED_ERROR, str(case)


def backend_or_skip(name: str) -> str:
    try:
        accelerated.load(name)
    except accelerated.BackendUnavailable as error:
        pytest.skip(str(error))
    return name


def prior_on_the_device():  # type: ignore[no-untyped-def]
    import torch

    from dvaepp.boltzmann import RBM

    prior = RBM(37, 43).cuda()
    with torch.no_grad():
        prior.W.normal_(0, 0.3, generator=torch.Generator("cuda").manual_seed(0))
    return prior


@pytest.mark.parametrize("name", accelerated.FASTEST_FIRST["cuda"])
def test_a_captured_graph_advances_the_chains(name: str) -> None:
    """Replayed four times it does what four calls do: the step is read on the device, when the kernel runs."""
    import torch

    from dvaepp.gibbs import PersistentChains

    backend, prior = backend_or_skip(name), prior_on_the_device()
    eager, captured = (PersistentChains(1000, 37, 43, seed=1).cuda() for _ in range(2))
    for chains in (eager, captured):
        chains.run(prior, 3, backend)  # compiles, and sets up what capture must not
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured.run(prior, 3, backend)
    for _ in range(4):
        graph.replay()
        eager.run(prior, 3, backend)
    assert captured.step == eager.step == 15
    assert torch.equal(captured.states(), eager.states())
    assert 0.1 < eager.states().mean() < 0.9


@pytest.mark.parametrize("name", accelerated.FASTEST_FIRST["cuda"])
def test_operators_run_on_the_callers_stream(name: str) -> None:
    """Behind work that takes long on the same stream: an operator on another stream would see what was there before."""
    import torch

    from dvaepp.smoothing import OverlappingExponential

    backend = backend_or_skip(name)
    smoothing = OverlappingExponential(6.0, backend)
    rho, right = torch.rand(2, 1000, 200, device="cuda").unbind()
    expected = smoothing.inverse_cdf(rho, right)
    logit_q, slow = torch.zeros_like(right), torch.rand(4096, 4096, device="cuda")
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        for _ in range(20):
            slow = slow @ slow / 4096
        logit_q.copy_(right)
        zeta = smoothing.inverse_cdf(rho, logit_q)
        ours = zeta + 0  # and what follows on the stream sees the operator's result
    torch.cuda.synchronize()
    assert torch.equal(ours, expected)


@pytest.mark.parametrize("name", accelerated.FASTEST_FIRST["cuda"])
def test_a_compiled_objective_with_the_backend(name: str) -> None:
    import torch

    from dvaepp import bridge
    from dvaepp.smoothing import OverlappingExponential

    backend, prior = backend_or_skip(name), prior_on_the_device()
    smoothing, twin = OverlappingExponential(6.0, backend), OverlappingExponential(6.0)
    rho, logits = torch.rand(2, 100, 80, device="cuda").unbind()

    def gradients(smoothing: OverlappingExponential, compiled: bool) -> list[torch.Tensor]:
        def loss(logit_q: torch.Tensor) -> torch.Tensor:
            zeta = smoothing.inverse_cdf(rho, logit_q)
            value = bridge.cross_entropy(prior.a1, prior.a2, prior.W, logit_q.sigmoid(), zeta, 2, backend)
            return (value - bridge.entropy(logit_q, backend)).sum()

        logit_q = logits.clone().requires_grad_()
        value = (torch.compile(loss, fullgraph=True, backend="aot_eager") if compiled else loss)(logit_q)
        return list(torch.autograd.grad(value, (logit_q, *prior.parameters())))

    expected = gradients(twin, compiled=False)
    for ours, theirs in zip(gradients(smoothing, compiled=True), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["torch", *accelerated.FASTEST_FIRST["cuda"]])
def test_training_runs_and_resumes_on_the_device(tmp_path: Path, name: str) -> None:
    from dvaepp.train import main

    backend = name if name == "torch" else backend_or_skip(name)
    run = tmp_path / "run"
    arguments = [
        *("--iterations", "60", "--latents", "20", "--chains", "50", "--sweeps", "2", "--n-importance", "4"),
        *("--valid-importance", "2", "--device", "cuda", "--out", str(run)),
        *("--backend", backend),
    ]
    assert main(arguments) == 0
    assert main(["--resume", str(run), "--device", "cuda"]) == 0
    assert json.loads((run / "evaluation-K4.json").read_text())["backend"] == backend
