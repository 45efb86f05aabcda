"""The migrations of each service are one line: of two changes that were made at once, one comes after the other."""

from importlib import resources

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory


@pytest.mark.parametrize("service", ["order", "consumer", "kitchen", "accounting"])
def test_there_is_one_newest_revision(service):
    config = Config()
    config.set_main_option("script_location", str(resources.files(f"ftgo_{service}").joinpath("migrations")))
    script = ScriptDirectory.from_config(config)
    assert len(script.get_heads()) == 1
    revisions = [revision.revision for revision in script.walk_revisions()]
    assert revisions == sorted(revisions, reverse=True)
