"""With this folder on PYTHONPATH, a process finds gs:// in the folder FAKE_BUCKETS (see server.py)."""

from tests.bucket import buckets

buckets.register()
buckets.register_storage()
