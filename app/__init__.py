"""The service: who may publish a ticket, and who may read it. FastAPI and SQLAlchemy; never torch."""
