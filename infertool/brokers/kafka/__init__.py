"""Apache Kafka: many events of a partition in work at once, each settled when it is done.

The commit carries the watermark and, in its metadata, the offsets beyond it that are done.
"""
