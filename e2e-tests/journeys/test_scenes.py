"""The scenes of `ftgo demo`, played as they are shown."""

import pytest
from ftgo_local.scenes import SCENES, Scene
from ftgo_local.scenes.stage import Stage


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: f"{scene.number}_{scene.play.__name__}")
async def test_scene(scene: Scene, stage: Stage) -> None:
    if missing := scene.lacks(stage):
        pytest.skip(missing)
    await scene.play(stage)
