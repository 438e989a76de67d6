from tests.worker.conftest import arena, templates

__all__ = ["arena", "templates"]
