"""report.html: what a run was trained on, how it went and how good it is, as one static page in its workdir."""
