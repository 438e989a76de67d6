# Two images: `docker build --target service .` (no torch) and `docker build --target worker .`
FROM python:3.11-slim AS base
WORKDIR /nirvana
ENV PYTHONUNBUFFERED=1 PYTHONPATH=/nirvana NIRVANA_HOME=/data NIRVANA_HOST=0.0.0.0
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY nirvana nirvana
RUN pip install --no-cache-dir -c constraints.txt '.[server]'
COPY app app
COPY migrations migrations
COPY docs/verification.md docs/
COPY alembic.ini ./
RUN useradd --create-home nirvana && mkdir /data && chown nirvana /data
VOLUME /data

FROM base AS worker
RUN pip install --no-cache-dir -c constraints.txt '.[worker]'
COPY worker worker
USER nirvana
CMD ["python", "-m", "worker"]

FROM base AS service
USER nirvana
EXPOSE 8000
CMD ["sh", "-c", "python -m app migrate && exec python -m app serve"]
