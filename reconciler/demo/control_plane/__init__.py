"""Real control planes: etcd and kube-apiserver (and kube-controller-manager when asked) as processes on 127.0.0.1.

    assets.py      where the programs and the Flink operator's CRDs are
    plane.py       one running control plane: started, held, asked, let go
    supervisor.py  the process that owns the programs for as long as somebody holds them

The demo plays on them with `--control-plane real`, and the tests hold the simulator against them.
"""
