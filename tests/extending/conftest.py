from tests.http.conftest import make_registry, registry

__all__ = ["make_registry", "registry"]
