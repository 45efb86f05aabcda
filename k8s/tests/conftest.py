"""The overlays as kustomize builds them."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
Manifest = dict[str, Any]


@pytest.fixture(scope="session", params=["local", "external", "production", "production-tailing"])
def overlay(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def manifests(overlay: str) -> list[Manifest]:
    return build(overlay)


@pytest.fixture(scope="session")
def local() -> list[Manifest]:
    return build("local")


@pytest.fixture(scope="session")
def external() -> list[Manifest]:
    return build("external")


@pytest.fixture(scope="session")
def production() -> list[Manifest]:
    return build("production")


@pytest.fixture(scope="session")
def tailing() -> list[Manifest]:
    return build("production-tailing")


def build(overlay: str) -> list[Manifest]:
    local = ROOT / ".tools/kustomize"
    kustomize = shutil.which("kustomize") or (str(local) if local.exists() else None)
    if kustomize is None:
        if os.environ.get("FTGO_K8S_CHECK"):
            pytest.fail("no kustomize: k8s/check should have compiled it")
        pytest.skip("no kustomize here: `make k8s-check` gets it")
    command = [kustomize, "build", str(ROOT / "k8s/overlays" / overlay)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return [m for m in yaml.safe_load_all(built.stdout) if m]
