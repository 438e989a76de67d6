"""The worker: runs jobs with `nirvana.lab` and writes what they find through the services of `app`."""
