"""The connector file names columns, publication and settings that exist. Debezium itself is not run here."""

import json
from pathlib import Path

from ftgo_messaging.outbox.table import PUBLICATION, outbox_table
from sqlalchemy import MetaData

CONNECTOR = Path(__file__).parents[4] / "docs" / "debezium" / "outbox-connector.json"
ROUTER = "transforms.outbox."


def test_the_connector_fits_the_table() -> None:
    config = json.loads(CONNECTOR.read_text())["config"]
    columns = {column.name for column in outbox_table(MetaData()).columns}
    named = {value for option, value in config.items() if option.startswith(f"{ROUTER}table.field.event.")}
    placed = {entry.split(":")[0] for entry in config[f"{ROUTER}table.fields.additional.placement"].split(",")}
    assert named == {"message_id", "key", "body"}
    assert placed == {"headers"}
    assert named | placed | {config[f"{ROUTER}route.by.field"]} <= columns
    assert config["publication.name"] == PUBLICATION
    assert config["publication.autocreate.mode"] == "disabled"
    assert config["table.include.list"] == "public.outbox"
    assert config["plugin.name"] == "pgoutput"


def test_no_secret_stands_in_the_file() -> None:
    config = json.loads(CONNECTOR.read_text())["config"]
    assert config["database.password"].startswith("${")
