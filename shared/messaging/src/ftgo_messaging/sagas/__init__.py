"""Sagas: a declaration of steps, an instance row per run, and an orchestrator that moves it on with every reply."""
