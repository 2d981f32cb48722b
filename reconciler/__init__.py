"""A GitOps reconciler that moves fleets of Apache Flink applications in gated waves."""

__version__ = "0.1.0"
