from tests.worker.conftest import arena

__all__ = ["arena"]
