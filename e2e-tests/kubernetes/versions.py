"""Versions that there are not yet: images of order with one migration more."""

import os
from pathlib import Path

from cluster import ROOT, run

MIGRATIONS = "services/order/src/ftgo_order/migrations/versions"


def newest_revision() -> int:
    return max(int(file.name[:4]) for file in (ROOT / MIGRATIONS).glob("[0-9]*.py"))


def build_next(image: str, name: str, number: int, statement: str, scratch: Path) -> str:
    """An image as the one before it, whose migration of that number carries out the statement. Returns its name."""
    folder = scratch / name
    folder.mkdir()
    (folder / "next.py").write_text(
        f'from alembic import op\n\nrevision = "{number:04}"\ndown_revision = "{number - 1:04}"\n\n\n'
        f'def upgrade() -> None:\n    op.execute("{statement}")\n'
    )
    target = f"/app/{MIGRATIONS.split('/src/')[1]}/{number:04}_{name}.py"
    (folder / "Dockerfile").write_text(f"FROM {image}\nCOPY --chmod=0644 next.py {target}\n")
    tag = f"ftgo-order:try-{name}"
    run("docker", "build", "--quiet", "--tag", tag, folder)
    return tag


def local_with(image: str, scratch: Path) -> Path:
    """An overlay: ``local`` with this image of order."""
    folder = scratch / "overlay"
    folder.mkdir(exist_ok=True)
    name, tag = image.split(":")
    local = os.path.relpath(ROOT / "k8s/overlays/local", folder.resolve())
    images = f"images:\n  - {{name: {name}, newTag: {tag}}}\n"
    (folder / "kustomization.yaml").write_text(f"resources: [{local}]\n{images}")
    return folder
