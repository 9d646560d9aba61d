"""What only a CUDA device can show; run by ``pytest -m gpu`` where there is one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

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


def test_training_runs_and_resumes_on_the_device(tmp_path: Path) -> None:
    from dvaepp.train import main

    run = tmp_path / "run"
    arguments = [
        *("--iterations", "60", "--latents", "20", "--chains", "50", "--sweeps", "2", "--n-importance", "4"),
        *("--valid-importance", "2", "--device", "cuda", "--out", str(run)),
    ]
    assert main(arguments) == 0
    assert main(["--resume", str(run), "--device", "cuda"]) == 0
