from ftgo_local.cli import app

app()
