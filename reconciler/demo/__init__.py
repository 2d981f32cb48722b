"""The demo: the main job with nothing installed but Python and git.

A local Git repository made from the sample, simulated clusters that speak Kubernetes over HTTP on 127.0.0.1, the
shipped daemon between them, and four steps played on a clock that is stepped:

    play.py        one performance from curtain to curtain: what `reconciler demo` does
    steps.py       the four steps: what happens, when a step is over, and how its outcome is verified
    stage.py       repository, clusters, daemon and API, and the clock that goes on when all of them have come to rest
    fleet.py       the sample repository for any number of clusters, and the commits of the steps
    repository.py  a Git repository on disk that is committed to
    traffic.py     what is on its way between daemon and clusters
    outcome.py     what became of a step, from the store and the clusters' own write logs
    view.py        what is shown meanwhile, on a terminal and elsewhere
"""
